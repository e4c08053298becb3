//! The protocol's rules by name, with the numbers that they are usually swept with.

use crate::economy::{Gold, Setting};
use poq_core::{Aggregation, KindParams, MeritRule, Ratio, TrustRule};

/// A named choice of a rule.
pub type Named<T> = (&'static str, T);

/// How scores become a consensus.
pub const AGGREGATIONS: [Named<Aggregation>; 5] = [
    ("mean", Aggregation::Mean),
    ("median", Aggregation::Median),
    ("trimmed-mean", Aggregation::TrimmedMean { trim: Ratio::from_permille(200) }),
    ("trust-weighted-mean", Aggregation::TrustWeightedMean),
    ("trust-weighted-median", Aggregation::TrustWeightedMedian),
];

/// How an evaluator's merit is measured. The information rule has the shipped step and floor.
pub const MERITS: [Named<MeritRule>; 2] = [
    ("closeness", MeritRule::Closeness),
    (
        "information",
        MeritRule::Information { step: Ratio::from_permille(20), floor: Ratio::from_permille(10) },
    ),
];

/// How an evaluator's trust moves. Anchored trust moves in gold tasks only.
pub const TRUSTS: [Named<TrustRule>; 4] = [
    ("multiplicative", TrustRule::Multiplicative { eta: Ratio::from_permille(100) }),
    ("centred", TrustRule::Centred { up: Ratio::from_permille(100), down: Ratio::from_permille(500) }),
    ("relative-merit", TrustRule::RelativeMerit { rate: Ratio::from_permille(50) }),
    ("anchored", TrustRule::Anchored { rate: Ratio::from_permille(50) }),
];

/// A trust rule with what goes along with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regime {
    /// The rule.
    pub trust: TrustRule,
    /// The share of tasks that are gold.
    pub gold: f64,
}

impl Regime {
    /// A rule and how much gold there is.
    pub const fn of(trust: TrustRule, gold: f64) -> Regime {
        Regime { trust, gold }
    }

    /// Sets what goes along with the rule; auditors get time where there are any, and where there are none everybody is trusted
    /// alike, because nothing ever moves it.
    pub(crate) fn apply(&self, setting: &mut Setting) {
        set_trust(&mut setting.params, self.trust);
        if self.gold == 0.0 {
            setting.params.trust_initial = Ratio::ONE;
        }
        setting.params.audit_ms = if self.gold > 0.0 { AUDIT_MS } else { 0 };
        setting.gold = Gold { share: self.gold, noise: GOLD_NOISE, abused: 0.0 };
    }
}

/// Sets a trust rule with what newcomers are trusted under it.
pub fn set_trust(params: &mut KindParams, trust: TrustRule) {
    params.trust = trust;
    (params.trust_initial, params.trust_floor) = newcomers(trust);
}

/// The trust of a new evaluator, and the trust below which none falls, under a rule: a half where trust says little, less where
/// it says what an evaluator has shown, so that a new name is worth less than an old one. Under anchored trust newcomers start
/// at the floor: where gold tasks can hardly tell evaluators apart honest trust is low too, and any new name above the floor
/// would be worth having.
fn newcomers(trust: TrustRule) -> (Ratio, Ratio) {
    let shipped = match trust {
        TrustRule::Multiplicative { .. } | TrustRule::Centred { .. } => {
            return (Ratio::from_permille(500), Ratio::from_permille(50))
        }
        TrustRule::RelativeMerit { .. } => KindParams::without_auditors(),
        TrustRule::Anchored { .. } => KindParams::default(),
    };
    (shipped.trust_initial, shipped.trust_floor)
}

/// How well an opened reference shows true quality in sweeps: the standard deviation of the truth around it.
pub const GOLD_NOISE: f64 = 0.1;
/// The time that an auditor has.
pub const AUDIT_MS: u64 = 60_000;

/// A set of rules that tables and plots compare.
#[derive(Clone, Copy, Debug)]
pub struct RuleSet {
    /// Its name.
    pub name: &'static str,
    /// The aggregation.
    pub aggregation: Aggregation,
    /// The merit rule.
    pub merit: MeritRule,
    /// The trust rule.
    pub regime: Regime,
}

impl RuleSet {
    /// The default setting under these rules.
    pub fn setting(&self) -> Setting {
        let mut setting = Setting::default();
        setting.params.aggregation = self.aggregation;
        setting.params.merit = self.merit;
        self.regime.apply(&mut setting);
        setting
    }
}

/// The papers' rules; the best that look at closeness alone, both with gold, for nothing else moves trust; the information rule without auditors, and with (recommended);
/// closeness with auditors.
pub const RULE_SETS: [RuleSet; 5] = [
    RuleSet {
        name: "papers: closeness, multiplicative, mean, 10 % gold",
        aggregation: Aggregation::Mean,
        merit: MERITS[0].1,
        regime: Regime::of(TRUSTS[0].1, 0.1),
    },
    RuleSet {
        name: "closeness, centred, weighted median, 10 % gold",
        aggregation: Aggregation::TrustWeightedMedian,
        merit: MERITS[0].1,
        regime: Regime::of(TRUSTS[1].1, 0.1),
    },
    RuleSet {
        name: "information, median, no gold",
        aggregation: Aggregation::Median,
        merit: MERITS[1].1,
        regime: Regime::of(TRUSTS[3].1, 0.0),
    },
    RuleSet {
        name: "information, anchored, median, 10 % gold",
        aggregation: Aggregation::Median,
        merit: MERITS[1].1,
        regime: Regime::of(TRUSTS[3].1, 0.1),
    },
    RuleSet {
        name: "closeness, anchored, median, 10 % gold",
        aggregation: Aggregation::Median,
        merit: MERITS[0].1,
        regime: Regime::of(TRUSTS[3].1, 0.1),
    },
];

/// The recommended rules without auditors.
pub const UNAUDITED: RuleSet = RULE_SETS[2];
/// The recommended rules.
pub const RECOMMENDED: RuleSet = RULE_SETS[3];

/// The choice of this name.
///
/// # Errors
/// Says which names there are.
pub fn named<T: Copy>(of: &[Named<T>], name: &str) -> Result<T, String> {
    of.iter().find(|(known, _)| *known == name).map(|(_, rule)| *rule).ok_or_else(|| {
        let known: Vec<&str> = of.iter().map(|(name, _)| *name).collect();
        format!("there is no `{name}`; there are: {}", known.join(", "))
    })
}

/// The name of an aggregation, whatever its numbers.
pub const fn aggregation_name(rule: Aggregation) -> &'static str {
    match rule {
        Aggregation::Mean => "mean",
        Aggregation::Median => "median",
        Aggregation::TrimmedMean { .. } => "trimmed-mean",
        Aggregation::TrustWeightedMean => "trust-weighted-mean",
        Aggregation::TrustWeightedMedian => "trust-weighted-median",
    }
}

/// The name of a merit rule, whatever its numbers.
pub const fn merit_name(rule: MeritRule) -> &'static str {
    match rule {
        MeritRule::Closeness => "closeness",
        MeritRule::Information { .. } => "information",
    }
}

/// The name of a trust rule, whatever its numbers.
pub const fn trust_name(rule: TrustRule) -> &'static str {
    match rule {
        TrustRule::Multiplicative { .. } => "multiplicative",
        TrustRule::Centred { .. } => "centred",
        TrustRule::RelativeMerit { .. } => "relative-merit",
        TrustRule::Anchored { .. } => "anchored",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is recommended is what ships.
    #[test]
    fn the_recommended_rules_are_the_shipped_defaults() {
        let shipped = [(RECOMMENDED, KindParams::default()), (UNAUDITED, KindParams::without_auditors())];
        for (rules, params) in shipped {
            assert_eq!(rules.setting().params, params, "{}", rules.name);
        }
    }

    #[test]
    fn names_and_rules_agree() {
        assert!(AGGREGATIONS.iter().all(|(name, rule)| aggregation_name(*rule) == *name));
        assert!(MERITS.iter().all(|(name, rule)| merit_name(*rule) == *name));
        assert!(TRUSTS.iter().all(|(name, rule)| trust_name(*rule) == *name));
        assert_eq!(named(&AGGREGATIONS, "median"), Ok(Aggregation::Median));
        assert!(named(&TRUSTS, "blind").unwrap_err().contains("there are: multiplicative"));
    }
}
