//! Cells where the contract's code runs without a chain, in the memory of this thread: so that its own logic, not a copy of it, can
//! be driven a million times. A journal takes back what a refused message has written, as a chain does, and tells what an accepted one
//! has. Caller, value, time and transfers are ink!'s off-chain environment's (`ink::env::test`).

use std::cell::RefCell;
use std::collections::BTreeMap;

/// Cells by their keys.
pub type Cells = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Memory {
    cells: Cells,
    /// What each cell held when it was first written since the last [`commit`] or [`roll_back`].
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// The cell of this key.
pub fn read(key: &[u8]) -> Option<Vec<u8>> {
    MEMORY.with_borrow(|memory| memory.cells.get(key).cloned())
}

/// Writes a cell.
pub fn write(key: Vec<u8>, record: Vec<u8>) {
    MEMORY.with_borrow_mut(|memory| {
        let old = memory.cells.insert(key.clone(), record);
        memory.before.entry(key).or_insert(old);
    });
}

/// Frees a cell.
pub fn remove(key: Vec<u8>) {
    MEMORY.with_borrow_mut(|memory| {
        let old = memory.cells.remove(&key);
        memory.before.entry(key).or_insert(old);
    });
}

/// All cells.
pub fn cells() -> Cells {
    MEMORY.with_borrow(|memory| memory.cells.clone())
}

/// Forgets everything.
pub fn clear() {
    MEMORY.take();
}

/// Keeps what was written since the last one: each key with its cell now.
pub fn commit() -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    MEMORY.with_borrow_mut(|memory| {
        let keys = core::mem::take(&mut memory.before).into_keys();
        keys.map(|key| (key.clone(), memory.cells.get(&key).cloned())).collect()
    })
}

/// Takes back what was written since the last [`commit`].
pub fn roll_back() {
    MEMORY.with_borrow_mut(|memory| {
        for (key, old) in core::mem::take(&mut memory.before) {
            match old {
                Some(record) => memory.cells.insert(key, record),
                None => memory.cells.remove(&key),
            };
        }
    });
}
