//! temporary
use poq_simulator::*;
fn main() {
    for spread in Spread::ALL {
        let world = World::standard(spread).unwrap();
        let t = std::time::Instant::now();
        let effort = Effort { rounds: 5000, replications: 4, seed: 1 };
        for attack in Attack::ALL {
            print!("{:8} {:20}", spread.name(), attack.to_string());
            for ratio in [0.1, 0.3, 0.45] {
                let job = Job { world: &world, setting: Setting::default(), crowd: Crowd::default().attacked(attack, ratio) };
                let s = Summary::of(&job.outcomes(effort).unwrap());
                print!(" | pay {:6.2} profit {:6.2} err {:.3} bias {:6.3} trust {:.2}/{:.2} settled {:.2} be {:12}", s.mean(Metric::PayRatio), s.mean(Metric::ProfitRatio), s.mean(Metric::AbsoluteError), s.mean(Metric::Bias), s.mean(Metric::HonestTrust), s.mean(Metric::AttackerTrust), s.mean(Metric::SettledShare), s.break_even.unwrap().to_string());
            }
            println!();
        }
        println!("{:?}", t.elapsed());
    }
}
