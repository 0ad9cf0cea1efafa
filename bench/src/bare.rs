//! The yardstick: as many bytes over one unidirectional iroh stream, dialing included.

use bytes::Bytes;

use crate::{
    Error,
    nodes::loopback_endpoint,
    sample::{Meter, Sample},
};

const ALPN: &[u8] = b"headwater/bench/bare";

/// Bytes handed to the stream at once: whatever Headwater's batches become, the yardstick stays.
const CHUNK_BYTES: usize = 256 * 1024;

/// Moves `total` bytes from one endpoint to another, from the dial to the last byte read.
///
/// # Errors
///
/// If the connection fails or bytes are missing.
pub async fn measure(total: u64) -> Result<Sample, Error> {
    let sender = loopback_endpoint(vec![ALPN.to_vec()]).await?;
    let receiver = loopback_endpoint(vec![]).await?;
    let sender_addr = sender.addr();

    let serve = tokio::spawn({
        let sender = sender.clone();
        async move {
            let incoming = sender.accept().await.ok_or("the endpoint was closed")?;
            let connection = incoming.await?;
            let mut stream = connection.open_uni().await?;
            let chunk = Bytes::from(vec![0x5a; CHUNK_BYTES]);
            let mut left = total;
            while left > 0 {
                let take = left.min(CHUNK_BYTES as u64);
                // At most CHUNK_BYTES, so it fits a usize.
                stream.write_chunk(chunk.slice(..take as usize)).await?;
                left -= take;
            }
            stream.finish()?;
            connection.closed().await;
            Ok::<_, Error>(())
        }
    });

    let meter = Meter::start();
    let connection = receiver.connect(sender_addr, ALPN).await?;
    let mut stream = connection.accept_uni().await?;
    let mut received = 0u64;
    while let Some(chunk) = stream.read_chunk(CHUNK_BYTES).await? {
        received += chunk.len() as u64;
    }
    let (wall, cpu) = meter.stop();
    connection.close(0u32.into(), b"done");
    serve.await??;
    if received != total {
        return Err(format!("received {received} of {total} bytes").into());
    }
    receiver.close().await;
    sender.close().await;
    Ok(Sample {
        payload_bytes: total,
        wall,
        cpu,
        ..Sample::default()
    })
}
