//! temporary
use poq_simulator::*;
use poq_simulator::economy::Gold;
use poq_core::{TrustRule, Ratio, KindParams, Aggregation, MeritRule};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let share: f64 = args[1].parse().unwrap();
    let rate: u32 = args[2].parse().unwrap();
    let panel: u8 = args[3].parse().unwrap();
    let abused: f64 = args[4].parse().unwrap();
    let agg = match args[5].as_str() { "med" => Aggregation::Median, "twmed" => Aggregation::TrustWeightedMedian, "twmean" => Aggregation::TrustWeightedMean, _ => Aggregation::Mean };
    for spread in Spread::ALL {
        let world = World::standard(spread).unwrap();
        let effort = Effort { rounds: 5000, replications: 4, seed: 1 };
        for attack in Attack::ALL {
            if attack.corrupts() == attack::Corrupts::Inference { continue }
            print!("{:8} {:20}", spread.name(), attack.to_string());
            for ratio in [0.1, 0.3, 0.45] {
                let trust = if rate > 0 { TrustRule::Anchored { rate: Ratio::from_permille(rate) } } else { TrustRule::RelativeMerit { rate: Ratio::from_permille(50) } };
                let mut params = KindParams { trust, aggregation: agg, audit_ms: 60_000, ..KindParams::default() };
                if args.len() > 6 { params.merit = MeritRule::Closeness }
                let setting = Setting { params, panel, gold: Gold { share, noise: 0.1, abused }, ..Setting::default() };
                let job = Job { world: &world, setting, crowd: Crowd::default().attacked(attack, ratio) };
                let s = Summary::of(&job.outcomes(effort).unwrap());
                print!(" | pay {:6.2} profit {:6.2} err {:.3} bias {:6.3} trust {:.2}/{:.2} settled {:.2} be {:12}", s.mean(Metric::PayRatio), s.mean(Metric::ProfitRatio), s.mean(Metric::AbsoluteError), s.mean(Metric::Bias), s.mean(Metric::HonestTrust), s.mean(Metric::AttackerTrust), s.mean(Metric::SettledShare), s.break_even.unwrap().to_string());
            }
            println!();
        }
    }
}
