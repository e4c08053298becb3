//! Accounts: subxt's type at this crate's surface, ink!'s inside the contract's values.

use subxt::utils::AccountId32;

/// The account type in the contract's own values.
pub type InkAccountId = ink::primitives::AccountId;

/// The account of a contract's value.
pub fn to_account32(account: &InkAccountId) -> AccountId32 {
    let bytes: &[u8; 32] = account.as_ref();
    AccountId32(*bytes)
}

/// The account as the contract's values hold it.
pub fn to_ink(account: &AccountId32) -> InkAccountId {
    InkAccountId::from(account.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_survive_both_ways() {
        let account = AccountId32([7; 32]);
        assert_eq!(to_account32(&to_ink(&account)), account);
    }
}
