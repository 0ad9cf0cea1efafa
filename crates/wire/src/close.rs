//! How a sync ends early: one table of codes, and who is at fault.

/// Who caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// This node: its store, its limits, its user.
    Local,
    /// The peer broke a rule of the protocol.
    Peer,
    /// The network or the connection.
    Transport,
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $wide:literal;)*) => {
        /// Why a stream was reset or a connection closed; sent as the QUIC application error
        /// code. Codes below 16 end one stream, codes from 16 the connection.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CloseCode {
            $($(#[$doc])* $name,)*
        }

        impl CloseCode {
            /// Every code, ascending.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The number on the wire.
            pub const fn code(self) -> u64 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The meaning of a number a peer sent; `None` if this version knows none.
            pub const fn from_code(code: u64) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Whether the whole connection ends, not just the stream.
            pub const fn is_connection_wide(self) -> bool {
                match self {
                    $(Self::$name => $wide,)*
                }
            }
        }
    };
}

close_codes! {
    /// All went well.
    Done = 0, false;
    /// The space is unknown here, or not for this peer: both are told alike.
    Refused = 1, false;
    /// Too much is going on; try again later.
    Busy = 2, false;
    /// The user, or the application, ended the sync.
    Cancelled = 3, false;
    /// An answer, or progress, did not come in time.
    TimedOut = 4, false;
    /// A message, or something a message asks for, that this version does not know.
    Unsupported = 5, false;
    /// The clock names more authors than this node's limit allows.
    TooManyAuthors = 6, false;
    /// This node's own store failed.
    Internal = 7, false;
    /// The stream ended before the sync did.
    Truncated = 8, false;
    /// The two sides computed different joined digests.
    DigestMismatch = 9, false;
    /// A live reader fell behind; it goes on by syncing again.
    Lagged = 10, false;
    /// A log was cut while it was served, by a fork or a revocation; sync again.
    LogCut = 11, false;
    /// The node is shutting down.
    ShuttingDown = 16, true;
    /// Bytes are not a message, a run or a frame.
    Malformed = 17, true;
    /// A message in the wrong phase, role or order, or for another request.
    ProtocolViolation = 18, true;
    /// A run's signature, chain, space or author is wrong.
    InvalidRun = 19, true;
    /// More was sent than was promised.
    PlanExceeded = 20, true;
    /// Too many connections, or too many of one peer.
    TooManyConnections = 21, true;
    /// The peer broke rules again and again, and is not heard for a while.
    Banned = 22, true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back_and_say_by_their_range_what_they_end() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_code(code.code()), Some(*code));
            assert_eq!(code.is_connection_wide(), code.code() >= 16);
        }
        assert_eq!(CloseCode::from_code(u64::MAX), None);
        assert!(
            CloseCode::ALL
                .windows(2)
                .all(|two| two[0].code() < two[1].code())
        );
    }
}
