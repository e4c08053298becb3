//! The fuzzer, as long as a test may take; `scripts/bench.sh fuzz` runs it for longer. `POQ_FUZZ_SEED` says which random numbers.
#![allow(clippy::unwrap_used, missing_docs)]

use ink::primitives::AccountId;
use poq_core::units::{Balance, Millis};
use poq_runtime_tests::fuzz::act::{Script, Verb};
use poq_runtime_tests::fuzz::machine::{Call, Machine, Payload, Sent};
use poq_runtime_tests::fuzz::message::Message;
use poq_runtime_tests::fuzz::run::{run, storm, Outcome, Tally};
use poq_runtime_tests::fuzz::state::Written;
use poq_runtime_tests::fuzz::{Chain, Failure, Native};
use std::collections::BTreeMap;

type Res<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn seed() -> u64 {
    std::env::var("POQ_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7)
}

/// What went wrong, with all that it takes to see it again.
fn report(script: &Script, (tally, log, outcome): Outcome) -> Res<Tally> {
    match outcome {
        Ok(()) => Ok(tally),
        Err(error) => {
            log.iter().for_each(|call| println!("{call}"));
            Err(format!("{error}\nscripts/bench.sh fuzz --seed {} shortens it", script.seed).into())
        }
    }
}

/// How tasks can end.
const ENDINGS: [&str; 7] =
    ["consensus", "undelivered", "unopened", "no_secret", "no_panel", "below_quorum", "input_unavailable"];

#[test]
fn fuzz_of_the_contracts_own_code_breaks_nothing_and_reaches_everything() -> Res {
    let mut machine = Native::new()?;
    let mut all = Tally::default();
    for network in 0..30 {
        let script = Script::draw(seed() + network, 1_200);
        all.add(&report(&script, run(&mut machine, &script, false))?);
    }
    // A fuzzer whose calls are all refused shows nothing.
    for name in Message::NAMES {
        let accepted = all.messages.get(name).map_or(0, |count| count.accepted);
        let here = !["propose_code", "set_code", "migrate"].contains(name);
        assert!(accepted > 0 || !here, "{name} was never accepted: {:?}", all.messages.get(name));
    }
    for ending in ENDINGS {
        assert!(
            all.tasks.contains_key(&format!("ended: {ending}")),
            "no task ended by {ending}: {:?}",
            all.tasks
        );
    }
    for what in ["seats filled", "panel short", "gold opened", "keeper paid", "node drained by two misses"] {
        assert!(all.tasks.contains_key(what), "{what}: never");
    }
    Ok(())
}

#[test]
fn fuzz_of_the_wasm_on_the_runtime_breaks_nothing() -> Res {
    let mut machine = Chain::new()?;
    let script = Script::draw(seed(), 500);
    let tally = report(&script, run(&mut machine, &script, false))?;
    let accepted: u64 = tally.messages.values().map(|count| count.accepted).sum();
    assert!(accepted * 2 > tally.calls, "{accepted} of {} calls accepted", tally.calls);
    Ok(())
}

#[test]
fn any_bytes_to_every_selector_trap_nothing_and_change_nothing_that_they_may_not() -> Res {
    let mut machine = Chain::new()?;
    let script = Script::draw(seed(), 60);
    let tally = report(&script, storm(&mut machine, &script, 6))?;
    assert!(tally.messages["(raw bytes)"].refused > 200, "{:?}", tally.messages["(raw bytes)"]);
    Ok(())
}

/// Wasm and native side by side: each call goes to both.
struct Both {
    chain: Chain,
    native: Native,
}

impl Machine for Both {
    fn name(&self) -> &'static str {
        "both"
    }

    fn reset(&mut self) -> Result<(), Failure> {
        self.chain.reset()?;
        self.native.reset()
    }

    fn now(&self) -> Millis {
        self.chain.now()
    }

    fn wait_until(&mut self, at: Millis) -> Result<(), Failure> {
        self.chain.wait_until(at)?;
        self.native.wait_until(at)
    }

    fn can(&self, payload: &Payload) -> bool {
        self.native.can(payload)
    }

    fn send(&mut self, call: &Call) -> Result<Sent, Failure> {
        let sent = self.chain.send(call)?;
        if (self.chain.now(), self.chain.block()) != (self.native.now(), self.native.block()) {
            return Err(Failure::broken("a block was full: the two are out of step"));
        }
        let native = self.native.send(call)?;
        let cells = |written: &[Written]| written.iter().cloned().collect::<BTreeMap<_, _>>();
        // The chain tells all that its block has written: what the call has changed is among it.
        let (of_chain, of_native) = (cells(&sent.written), cells(&native.written));
        let same = of_native.iter().all(|(key, value)| of_chain.get(key) == Some(value));
        let answers = match (&sent.answer, &native.answer) {
            (Ok(chain), Ok(native)) => chain == native,
            (Err(chain), Err(native)) => chain == native || chain.name().starts_with('['),
            _ => false,
        };
        if !same || !answers {
            return Err(Failure::violation(format!(
                "{:?} on the chain, {:?} natively",
                sent.answer, native.answer
            )));
        }
        Ok(sent)
    }

    fn wealth(&mut self, accounts: &[AccountId]) -> Result<Vec<Balance>, Failure> {
        self.chain.wealth(accounts)
    }

    fn purse(&mut self) -> Result<Balance, Failure> {
        self.chain.purse()
    }

    fn give(&mut self, amount: Balance) -> Result<(), Failure> {
        self.chain.give(amount)?;
        self.native.give(amount)
    }

    fn starve(&mut self, _: usize) -> Result<(), Failure> {
        // Only a chain refuses to pay an account that is gone.
        Ok(())
    }

    fn cells(&mut self) -> Result<Vec<Written>, Failure> {
        let cells = self.chain.cells()?;
        let now = self.native.now();
        self.native.wait_until(now)?;
        let sorted = |cells: &[Written]| cells.iter().cloned().collect::<BTreeMap<_, _>>();
        if sorted(&cells) != sorted(&self.native.cells()?) {
            return Err(Failure::violation("the two begin with other cells"));
        }
        Ok(cells)
    }

    fn found_pool(&mut self) -> Result<Option<AccountId>, Failure> {
        Ok(None)
    }

    fn instances(&self) -> Option<[AccountId; 2]> {
        None
    }

    fn existential(&self) -> Balance {
        self.chain.existential()
    }
}

#[test]
fn the_native_contract_does_what_its_wasm_does_to_the_byte() -> Res {
    let chain = Chain::new()?;
    let (contract, genesis) = chain.place();
    let native = Native::at(contract, genesis, (chain.now(), chain.block()))?;
    let mut both = Both { chain, native };
    let mut script = Script::draw(seed() + 100, 400);
    script.acts.retain(|act| act.verb != Verb::Starve);
    report(&script, run(&mut both, &script, false))?;
    Ok(())
}

#[test]
fn a_script_is_read_as_it_is_printed() {
    let script = Script::draw(3, 40);
    assert_eq!(script.to_string().parse::<Script>(), Ok(script));
    assert!("seed 3\nwork 1 2 3".parse::<Script>().is_err());
    assert!("seed 3\nrest 1 2 3 4".parse::<Script>().is_err());
}

#[cfg(feature = "mutants")]
#[test]
fn every_mutant_is_found() -> Res {
    use poq_contract::mutant::{set, Mutant};
    use poq_runtime_tests::fuzz::shrink::shrink;
    use std::time::Duration;
    let mut machine = Native::new()?;
    for (name, mutant) in Mutant::ALL {
        set(Some(mutant));
        let found = (0..40).find_map(|network| {
            let script = Script::draw(seed() + network, 1_200);
            run(&mut machine, &script, false).2.err().map(|error| (script, error))
        });
        let (script, error) = found.ok_or(format!("mutant '{name}' was not found"))?;
        assert!(error.is_violation, "{name}: {error}");
        let mut fails = |script: &Script| run(&mut machine, script, false).2.is_err();
        let short = shrink(&script, Duration::from_secs(60), &mut fails);
        println!("mutant '{name}': {error}\n{short}");
        assert!(short.acts.len() <= 12, "{name}: {} acts are left", short.acts.len());
    }
    set(None);
    let script = Script::draw(seed(), 1_200);
    report(&script, run(&mut machine, &script, false))?;
    Ok(())
}
