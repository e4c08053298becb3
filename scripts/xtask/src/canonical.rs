//! ink! metadata in an order of its own.
//!
//! ink! finds a contract's events through a linker section, so their order, and with it the numbers of all types, is the
//! linker's. Nothing depends on that order (a log is matched by its signature topic, a type by its number), but the
//! artifacts are compared byte for byte, and the same sources must give the same file whatever compiled them: here events
//! are sorted by name and types numbered as they are first met.

use serde_json::{Map, Value};

use crate::bundle::BundleError;

/// Sorts the events of ink! metadata and numbers its types anew. Object keys are visited in alphabetical order, whatever
/// order `abi` holds them in.
///
/// # Errors
/// When a type is referred to that is not in the table of types, or when that table is malformed.
pub fn canonicalise(abi: &Map<String, Value>) -> Result<Map<String, Value>, BundleError> {
    let mut abi = abi.clone();
    if let Some(events) =
        abi.get_mut("spec").and_then(|spec| spec.get_mut("events")).and_then(Value::as_array_mut)
    {
        let name = |event: &Value| {
            ["label", "module_path", "signature_topic"]
                .map(|key| event[key].as_str().unwrap_or_default().to_owned())
        };
        events.sort_by_key(name);
    }
    let malformed = || BundleError::Metadata("its `types` are not a list of numbered types".to_owned());
    let Some(Value::Array(types)) = abi.remove("types") else {
        return Err(malformed());
    };
    let mut numbering = Numbering { old: Vec::with_capacity(types.len()), new: vec![None; types.len()] };
    for (position, entry) in types.iter().enumerate() {
        if entry["id"].as_u64() != Some(position as u64) {
            return Err(malformed());
        }
    }
    for key in ["spec", "storage"] {
        if let Some(value) = abi.get_mut(key) {
            numbering.renumber(value)?;
        }
    }
    // Types that only other types name are met here; the list grows while it is walked.
    let mut renumbered = Vec::with_capacity(types.len());
    while renumbered.len() < numbering.old.len() {
        let mut entry = types[numbering.old[renumbered.len()]].clone();
        numbering.renumber(&mut entry)?;
        entry["id"] = Value::from(renumbered.len());
        renumbered.push(entry);
    }
    abi.insert("types".to_owned(), Value::Array(renumbered));
    Ok(abi)
}

/// Old and new numbers of the types met so far.
struct Numbering {
    /// By new number: the old one.
    old: Vec<usize>,
    /// By old number: the new one.
    new: Vec<Option<usize>>,
}

impl Numbering {
    fn number(&mut self, old: u64) -> Result<Value, BundleError> {
        let unknown =
            || BundleError::Metadata(format!("it refers to the type {old}, which is not among its `types`"));
        let position = usize::try_from(old).map_err(|_| unknown())?;
        let slot = self.new.get_mut(position).ok_or_else(unknown)?;
        let new = *slot.get_or_insert_with(|| {
            self.old.push(position);
            self.old.len() - 1
        });
        Ok(Value::from(new))
    }

    /// Replaces every reference to a type below `value`: the key `type` (specification, types), `ty` (storage layout), and
    /// the bare numbers of a `tuple`. Names that the contract's author chose are never keys.
    fn renumber(&mut self, value: &mut Value) -> Result<(), BundleError> {
        match value {
            Value::Object(map) => {
                let mut keys: Vec<String> = map.keys().cloned().collect();
                keys.sort_unstable();
                for key in keys {
                    let Some(child) = map.get_mut(&key) else { continue };
                    match (key.as_str(), child.as_u64()) {
                        ("type" | "ty", Some(old)) => *child = self.number(old)?,
                        ("tuple", _) => {
                            for item in child.as_array_mut().into_iter().flatten() {
                                match item.as_u64() {
                                    Some(old) => *item = self.number(old)?,
                                    None => self.renumber(item)?,
                                }
                            }
                        }
                        _ => self.renumber(child)?,
                    }
                }
                Ok(())
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.renumber(item)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    /// `ids` are the numbers of u128, bool, the event's struct and the tuple of the first two.
    fn abi(ids: [usize; 4], events_swapped: bool) -> Map<String, Value> {
        let [amount, flag, node, pair] = ids;
        let mut types = vec![Value::Null; 4];
        types[amount] = json!({"id": amount, "type": {"def": {"primitive": "u128"}}});
        types[flag] = json!({"id": flag, "type": {"def": {"primitive": "bool"}}});
        types[node] = json!({"id": node, "type": {
            "def": {"composite": {"fields": [{"name": "type", "type": amount}]}},
            "params": [{"name": "T", "type": flag}, {"name": "U", "type": null}],
        }});
        types[pair] = json!({"id": pair, "type": {"def": {"tuple": [amount, flag]}}});
        let mut events = vec![
            json!({"label": "Claimed", "args": [{"label": "type", "type": {"displayName": ["u128"], "type": amount}}]}),
            json!({"label": "Staked", "args": [{"label": "node", "type": {"displayName": ["Node"], "type": node}}]}),
        ];
        if events_swapped {
            events.reverse();
        }
        object(json!({
            "spec": {"events": events},
            "storage": {"root": {"layout": {"leaf": {"key": "0x0", "ty": pair}}, "ty": pair}},
            "types": types,
            "version": 5,
        }))
    }

    #[test]
    fn the_order_of_the_linker_is_gone() {
        let first = canonicalise(&abi([0, 1, 2, 3], false)).unwrap();
        for ids in [[3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]] {
            for swapped in [false, true] {
                assert_eq!(canonicalise(&abi(ids, swapped)).unwrap(), first, "{ids:?} {swapped}");
            }
        }
        assert_eq!(canonicalise(&first).unwrap(), first, "once is enough");
    }

    #[test]
    fn references_still_lead_to_their_types() {
        let abi = Value::Object(canonicalise(&abi([3, 2, 1, 0], true)).unwrap());
        let follow = |number: &Value| abi["types"][number.as_u64().unwrap() as usize]["type"].clone();
        let amount = json!({"def": {"primitive": "u128"}});
        assert_eq!(follow(&abi["spec"]["events"][0]["args"][0]["type"]["type"]), amount);
        let node = follow(&abi["spec"]["events"][1]["args"][0]["type"]["type"]);
        assert_eq!(follow(&node["def"]["composite"]["fields"][0]["type"]), amount);
        assert_eq!(follow(&node["params"][0]["type"]), json!({"def": {"primitive": "bool"}}));
        let pair = follow(&abi["storage"]["root"]["ty"]);
        assert_eq!(follow(&pair["def"]["tuple"][0]), amount);
        assert_eq!(abi["storage"]["root"]["layout"]["leaf"]["ty"], abi["storage"]["root"]["ty"]);
    }

    #[test]
    fn refuses_a_broken_table() {
        let mut missing = abi([0, 1, 2, 3], false);
        missing["types"].as_array_mut().unwrap().pop();
        assert!(matches!(canonicalise(&missing), Err(BundleError::Metadata(_))));
        let mut gap = abi([0, 1, 2, 3], false);
        gap["types"].as_array_mut().unwrap().remove(0);
        assert!(matches!(canonicalise(&gap), Err(BundleError::Metadata(_))));
    }
}
