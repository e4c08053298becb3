//! temporary
use poq_simulator::*;
fn main() {
    for s in scenario::ALL {
        let t = std::time::Instant::now();
        let f = s.run(Effort { rounds: 3000, replications: 6, seed: 1 }).unwrap();
        println!("== {} {:?}", f.scenario, t.elapsed());
        for c in f.claims {
            println!("{} {}", if c.reproduced { "YES" } else { "NO " }, c.claim);
            for e in c.evidence { println!("      {}: {:.4} [{:.4}, {:.4}]", e.what, e.value.mean, e.value.low, e.value.high); }
        }
    }
}
