//! Decoding allocates in proportion to the bytes given, never to what they claim.
//!
//! One test in a binary of its own: the allocator counts for the whole process.

use bytes::Bytes;
use headwater_wire::{
    AuthorSecret, EventDraft, FrameDecoder, Message, Run, legacy::LegacyMessage, sign_runs,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Bytes allocated at most for each byte of input: a decoded event of a run takes 32 bytes for
/// the five it has at least, a head 88 for 66.
const BYTES_PER_BYTE: u64 = 16;

/// What is allocated whatever the input: buffers begun, error values.
const FIXED_BYTES: u64 = 1024;

fn allocated(work: impl FnOnce()) -> u64 {
    let before = dhat::HeapStats::get().total_bytes;
    work();
    dhat::HeapStats::get().total_bytes - before
}

/// xorshift64*: any bytes will do, and the same ones every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[test]
fn decoding_any_bytes_allocates_a_small_multiple_of_them() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut noise = Noise(1);
    let drafts = (0..50u8).map(|n| EventDraft::new(16, n.into(), vec![n; 40]));
    let secret = AuthorSecret::from_bytes([1; 32]);
    let space = headwater_wire::SpaceId::from_bytes([2; 32]);
    let run = sign_runs(&space, &secret, None, drafts).unwrap().remove(0);
    let good = run.run().as_bytes().clone();

    let check = |input: Bytes, what: &str| {
        let limit = FIXED_BYTES + BYTES_PER_BYTE * input.len() as u64;
        let spent = allocated(|| {
            let _ = Run::decode(input.clone());
            let _ = LegacyMessage::decode(input.clone());
            let _ = Message::decode_body(input.clone());
            let mut frames = FrameDecoder::new();
            let mut input = input.clone();
            while let Ok(Some(_)) = frames.read(&mut input) {}
        });
        assert!(spent <= limit, "{what}: {spent} bytes for {}", input.len());
    };
    for round in 0..20_000u32 {
        // Noise under every tag, and good runs with a few bytes changed, so that the decoders
        // get past their first fields.
        let len = (noise.next() % 300) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| noise.next() as u8).collect();
        if let Some(tag) = bytes.first_mut() {
            *tag = (round % 24) as u8;
        }
        check(bytes.into(), "noise");
        let mut bytes = good.to_vec();
        for _ in 0..=round % 4 {
            let at = (noise.next() % bytes.len() as u64) as usize;
            bytes[at] = noise.next() as u8;
        }
        check(bytes.into(), "changed run");
    }
    // The most events and the largest counts the fewest bytes can claim.
    for claim in [
        &[0x80u8, 8][..],
        &[0xff, 7],
        &[0xff; 9],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
    ] {
        for at in [0, 1, 2, 33, 34, 65] {
            let mut bytes = vec![1; at];
            bytes.extend_from_slice(claim);
            bytes.extend([0; 200]);
            check(bytes.into(), "claim");
        }
    }
}
