use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use poq_core::commitment::Hash;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// blake2b-256.
pub fn blake2_256(bytes: &[u8]) -> Hash {
    Blake2b::<U32>::digest(bytes).into()
}

/// A blob's name: the blake2b-256 hash of its bytes. Shown as 64 hex digits; read with or without 0x.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub Hash);

impl BlobId {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> BlobId {
        BlobId(blake2_256(bytes))
    }
}

impl From<Hash> for BlobId {
    fn from(hash: Hash) -> BlobId {
        BlobId(hash)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no blob's name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a blob's name is 64 hex digits, with or without 0x; this has {length} characters{}", if *.digits { "" } else { ", not all of them hex digits" })]
pub struct BlobIdError {
    length: usize,
    digits: bool,
}

impl FromStr for BlobId {
    type Err = BlobIdError;

    fn from_str(text: &str) -> Result<BlobId, BlobIdError> {
        hash_from_hex(text).map(BlobId).ok_or_else(|| {
            let bare = bare(text);
            BlobIdError { length: bare.chars().count(), digits: bare.chars().all(|c| c.is_ascii_hexdigit()) }
        })
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BlobId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn bare(text: &str) -> &str {
    text.strip_prefix("0x").unwrap_or(text)
}

pub(crate) fn hash_from_hex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    hex::decode_to_slice(bare(text), &mut hash).ok()?;
    Some(hash)
}

pub(crate) fn signature_from_hex(text: &str) -> Option<[u8; 64]> {
    let mut signature = [0; 64];
    hex::decode_to_slice(bare(text), &mut signature).ok()?;
    Some(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_hash_in_hex() {
        let id = BlobId::of(b"abc");
        let text = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse::<BlobId>(), Ok(id));
        assert_eq!(format!("0x{}", text.to_uppercase()).parse::<BlobId>(), Ok(id));
        assert_eq!(serde_json::from_str::<BlobId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        let error = "abcx".parse::<BlobId>().unwrap_err().to_string();
        assert!(error.contains("4 characters, not all of them hex"), "{error}");
        assert!("../../etc/passwd".parse::<BlobId>().is_err());
    }
}
