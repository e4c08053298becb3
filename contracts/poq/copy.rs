//! How memory is copied, which is much of what a message executes: records are large, and MVP Wasm has no instruction for it.
//!
//! ink! links `rlibc`, whose routines go byte by byte. Wasm loads and stores eight bytes anywhere, aligned or not: these take a sixth of
//! the instructions, and with them a round a tenth less gas. The linker takes the first definition of a symbol and never asks
//! `rlibc` for one, as long as all four are here.

/// A word at an address.
///
/// # Safety
/// Eight bytes can be read there.
#[inline(always)]
unsafe fn word(at: *const u8) -> u64 {
    // SAFETY: the caller's.
    unsafe { at.cast::<u64>().read_unaligned() }
}

/// Writes a word at an address.
///
/// # Safety
/// Eight bytes can be written there.
#[inline(always)]
unsafe fn put(at: *mut u8, word: u64) {
    // SAFETY: the caller's.
    unsafe { at.cast::<u64>().write_unaligned(word) }
}

/// As C has it.
///
/// # Safety
/// Both ranges are of `len` bytes and do not overlap.
#[no_mangle]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    let (mut at, blocks) = (0, len & !31);
    // SAFETY: nothing is read or written from `len` on.
    unsafe {
        while at < blocks {
            let (to, from) = (to.wrapping_add(at), from.wrapping_add(at));
            put(to, word(from));
            put(to.wrapping_add(8), word(from.wrapping_add(8)));
            put(to.wrapping_add(16), word(from.wrapping_add(16)));
            put(to.wrapping_add(24), word(from.wrapping_add(24)));
            at = at.wrapping_add(32);
        }
        while at.wrapping_add(8) <= len {
            put(to.wrapping_add(at), word(from.wrapping_add(at)));
            at = at.wrapping_add(8);
        }
        while at < len {
            to.wrapping_add(at).write(from.wrapping_add(at).read());
            at = at.wrapping_add(1);
        }
    }
    to
}

/// As C has it: the ranges may overlap.
///
/// # Safety
/// Both ranges are of `len` bytes.
#[no_mangle]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: nothing is read or written from `len` on. A word is read whole before it is written, and forwards nothing is written
    // that is still to be read, if `to` is below `from`.
    unsafe {
        if to.cast_const() <= from {
            return memcpy(to, from, len);
        }
        let mut left = len;
        while left >= 8 {
            left = left.wrapping_sub(8);
            put(to.wrapping_add(left), word(from.wrapping_add(left)));
        }
        while left > 0 {
            left = left.wrapping_sub(1);
            to.wrapping_add(left).write(from.wrapping_add(left).read());
        }
    }
    to
}

/// As C has it.
///
/// # Safety
/// The range is of `len` bytes.
#[no_mangle]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    let byte = byte.to_le_bytes()[0];
    let mut at: usize = 0;
    // SAFETY: nothing is written from `len` on.
    unsafe {
        while at.wrapping_add(8) <= len {
            put(to.wrapping_add(at), u64::from_le_bytes([byte; 8]));
            at = at.wrapping_add(8);
        }
        while at < len {
            to.wrapping_add(at).write(byte);
            at = at.wrapping_add(1);
        }
    }
    to
}

/// As C has it.
///
/// # Safety
/// Both ranges are of `len` bytes.
#[no_mangle]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    let mut at: usize = 0;
    // SAFETY: nothing is read from `len` on.
    unsafe {
        while at.wrapping_add(8) <= len && word(a.wrapping_add(at)) == word(b.wrapping_add(at)) {
            at = at.wrapping_add(8);
        }
        while at < len {
            let (a, b) = (a.wrapping_add(at).read(), b.wrapping_add(at).read());
            if a != b {
                return i32::from(a).wrapping_sub(i32::from(b));
            }
            at = at.wrapping_add(1);
        }
    }
    0
}
