//! Tokens of identity: values that are compared by what they were made for, not by content.
//!
//! Guarantees: a token equals its clones only. As long as one of them exists, no new token equals it.
//!
//! Leaves to others: what a token stands for.

use std::sync::Arc;

/// A token of identity. Every new one differs from all that exist.
#[derive(Clone, Debug, Default)]
pub struct IdentityToken(Arc<()>);

impl PartialEq for IdentityToken {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for IdentityToken {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_equal_their_clones_only() {
        let tokens: Vec<IdentityToken> = (0..100).map(|_| IdentityToken::default()).collect();
        for (at, token) in tokens.iter().enumerate() {
            assert_eq!(tokens.iter().position(|one| *one == token.clone()), Some(at));
        }
    }
}
