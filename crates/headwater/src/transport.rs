//! How an endpoint is set up that holds what the limits promise.

use iroh::endpoint::QuicTransportConfig;

/// Bytes one connection keeps of what its peer has not acknowledged. As much as a stream to a peer
/// with default windows may have under way, so that a sync with one is not slowed; and with the 2 MiB
/// that are queued and at hand, less than the 4 MiB a sync may take.
const SEND_WINDOW: u64 = 1_250_000;

/// QUIC as an endpoint should have it on which strangers are served:
///
/// ```
/// # use iroh::{Endpoint, endpoint::presets};
/// # async fn bind() -> Result<Endpoint, iroh::endpoint::BindError> {
/// Endpoint::builder(presets::N0)
///     .transport_config(headwater::transport_config())
///     .bind()
///     .await
/// # }
/// ```
///
/// iroh keeps up to 10 MB for each connection whose peer grants it and acknowledges nothing. That
/// is not a node's to change, and [`Limits`](crate::Limits) do not count it: this lowers it to 1.25
/// MB. All else is iroh's default.
#[must_use]
pub fn transport_config() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .send_window(SEND_WINDOW)
        .build()
}
