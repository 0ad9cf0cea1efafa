//! Fields of a message, as postcard writes them.

use headwater_wire::AuthorId;
use serde::{Deserialize, Serialize};

/// The bytes end inside a field, or the field holds what it cannot.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) field: &'static str,
}

pub(crate) fn put(bytes: &mut Vec<u8>, value: &impl Serialize) {
    let encoded = postcard::to_allocvec(value)
        .expect("plain structs and lists of known length always encode");
    bytes.extend_from_slice(&encoded);
}

/// Takes one field off the front.
pub(crate) fn take<'a, T: Deserialize<'a>>(
    rest: &mut &'a [u8],
    field: &'static str,
) -> Result<T, Malformed> {
    let (value, left) = postcard::take_from_bytes(rest).map_err(|_| Malformed { field })?;
    *rest = left;
    Ok(value)
}

/// Where authors are not in strictly ascending order.
pub(crate) fn first_not_rising(mut authors: impl Iterator<Item = AuthorId>) -> Option<usize> {
    let mut before = None;
    authors.position(|author| {
        before
            .replace(author)
            .is_some_and(|before| before >= author)
    })
}
