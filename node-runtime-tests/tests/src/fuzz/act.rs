//! What people do, as numbers. What an act means is found out when its turn comes ([`super::people`]), so that a sequence from which acts
//! are taken away is still one.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::str::FromStr;

/// Random numbers: the same for the same seed, on every machine.
pub type Random = ChaCha8Rng;

/// Random numbers of a seed.
pub fn random(seed: u64) -> Random {
    Random::seed_from_u64(seed)
}

/// Declares the verbs: what they are called, and how often they are drawn.
macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident $text:literal $weight:literal;)*) => {
        /// What is done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Verb {
            $($(#[$doc])* $name,)*
        }

        impl Verb {
            /// All of them, each with its weight in a draw.
            pub const ALL: &'static [(Verb, u32)] = &[$((Verb::$name, $weight)),*];
        }

        impl fmt::Display for Verb {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Verb::$name => $text),* })
            }
        }

        impl FromStr for Verb {
            type Err = String;

            fn from_str(text: &str) -> Result<Verb, String> {
                match text {
                    $($text => Ok(Verb::$name),)*
                    other => Err(format!("there is no act '{other}'")),
                }
            }
        }
    };
}

verbs! {
    /// A little time passes.
    Wait "wait" 70;
    /// Time passes until something of an open task is due, or a millisecond before or after.
    Until "until" 45;
    /// Time passes until something that takes long is over: an epoch, an unbonding, an announcement.
    Leap "leap" 6;
    /// Somebody asks.
    Request "request" 80;
    /// Somebody does what a task needs next.
    Work "work" 620;
    /// Somebody does all steps that are due.
    Keep "keep" 45;
    /// Somebody collects tasks that are over.
    Collect "collect" 35;
    /// A node's owner does something with it, or has another one.
    Own "own" 55;
    /// Somebody takes what is theirs.
    Take "take" 25;
    /// The contract's owner does something, or who thinks it is.
    Govern "govern" 24;
    /// An auditor does something.
    Audit "audit" 40;
    /// Somebody does something on the pool.
    Pool "pool" 14;
    /// Somebody sends money to the contract past its messages.
    Gift "gift" 1;
    /// An account is emptied, or filled again.
    Starve "starve" 3;
    /// Anybody sends anything.
    Noise "noise" 40;
    /// Anybody sends any bytes.
    Raw "raw" 6;
}

/// An act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// What is done.
    pub verb: Verb,
    /// By whom, with what, how: each verb reads them its own way, modulo what there is.
    pub n: [u32; 4],
}

impl Act {
    /// Any act.
    pub fn draw(random: &mut Random) -> Act {
        let total = Verb::ALL.iter().map(|(_, weight)| weight).sum();
        let mut place = random.random_range(0..total);
        let mut verb = Verb::Wait;
        for (other, weight) in Verb::ALL {
            verb = *other;
            match place.checked_sub(*weight) {
                Some(rest) => place = rest,
                None => break,
            }
        }
        Act { verb, n: random.random() }
    }

    /// Simpler acts that may do as well.
    pub fn simpler(&self) -> Vec<Act> {
        let mut all = Vec::new();
        for at in 0..self.n.len() {
            for number in [0, self.n[at] % 16, self.n[at] % 256, self.n[at] / 2] {
                let mut other = *self;
                other.n[at] = number;
                if number < self.n[at] && !all.contains(&other) {
                    all.push(other);
                }
            }
        }
        all
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.n;
        write!(f, "{} {a} {b} {c} {d}", self.verb)
    }
}

impl FromStr for Act {
    type Err = String;

    fn from_str(text: &str) -> Result<Act, String> {
        let mut words = text.split_whitespace();
        let verb = words.next().ok_or("an act is empty")?.parse()?;
        let mut n = [0; 4];
        for number in &mut n {
            let word = words.next().ok_or_else(|| format!("'{text}': an act has four numbers"))?;
            *number = word.parse().map_err(|error| format!("'{text}': {error}"))?;
        }
        match words.next() {
            None => Ok(Act { verb, n }),
            Some(more) => Err(format!("'{text}': '{more}' is too much")),
        }
    }
}

/// A sequence that can be run again: the seed of its network, and its acts. Its text is the seed on a line and an act on each of the
/// others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What its network is like.
    pub seed: u64,
    /// What is done.
    pub acts: Vec<Act>,
}

impl Script {
    /// So many acts of a seed.
    pub fn draw(seed: u64, acts: usize) -> Script {
        let mut random = random(seed);
        Script { seed, acts: (0..acts).map(|_| Act::draw(&mut random)).collect() }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        self.acts.iter().try_for_each(|act| writeln!(f, "{act}"))
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Script, String> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let first = lines.next().ok_or("there is no seed")?;
        let seed = first.strip_prefix("seed ").ok_or("the first line is not 'seed NUMBER'")?;
        let seed = seed.trim().parse().map_err(|error| format!("'{first}': {error}"))?;
        Ok(Script { seed, acts: lines.map(str::parse).collect::<Result<_, _>>()? })
    }
}
