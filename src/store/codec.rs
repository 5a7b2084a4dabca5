//! Records in the store: a version byte, a checksum, then the bytes.
//!
//! redb does not verify checksums when it reads, so every record carries its own: a flipped bit on disk is an error
//! here and never data. This is the only module that names `bincode`; should the encoding change, a new version byte
//! is added and the old one stays readable.

use bincode::config::{Configuration, standard};
use bincode::{Decode, Encode};

use super::StoreError;

const VERSION: u8 = 1;
const HEAD_LEN: usize = 5;
const CONFIG: Configuration = standard();

/// Encodes a value as a framed record.
pub(crate) fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut frame = vec![VERSION, 0, 0, 0, 0];
    bincode::encode_into_std_write(value, &mut frame, CONFIG)
        .expect("encoding plain data into memory cannot fail");
    seal(frame)
}

/// Decodes a framed record of `table`; the table's name is for the error only.
pub(crate) fn decode<T: Decode<()>>(table: &'static str, frame: &[u8]) -> Result<T, StoreError> {
    let payload = open(table, frame)?;
    let (value, read) =
        bincode::decode_from_slice(payload, CONFIG).map_err(|_| StoreError::Corrupt { table })?;
    if read == payload.len() {
        Ok(value)
    } else {
        Err(StoreError::Corrupt { table })
    }
}

/// Frames bytes that are already encoded (BSON).
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD_LEN + payload.len());
    frame.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    frame.extend_from_slice(payload);
    seal(frame)
}

/// The payload of a frame whose checksum holds.
pub(crate) fn open<'a>(table: &'static str, frame: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let corrupt = StoreError::Corrupt { table };
    let Some((head, payload)) = frame.split_at_checked(HEAD_LEN) else {
        return Err(corrupt);
    };
    let sealed = head[0] == VERSION && head[1..] == crc32c::crc32c(payload).to_be_bytes();
    if sealed { Ok(payload) } else { Err(corrupt) }
}

fn seal(mut frame: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&frame[HEAD_LEN..]);
    frame[1..HEAD_LEN].copy_from_slice(&checksum.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_is_an_error_and_never_data() {
        let frame = encode(&(42_u64, "a lead".to_owned()));
        assert_eq!(
            decode::<(u64, String)>("t", &frame).ok(),
            Some((42, "a lead".to_owned()))
        );
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<(u64, String)>("t", &flipped).is_err(), "bit {bit}");
        }
    }
}
