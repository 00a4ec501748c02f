//! Gzip (RFC 1952) read with `flate2`'s inflate and `crc32fast`'s checksum, which together are a third faster than
//! `flate2`'s own reader: its checksum takes as long as inflating does.

use std::io::{BufRead, Error, ErrorKind, Read, Result};

use flate2::bufread::DeflateDecoder;

/// The content of one or more gzip members, each checked against its checksum and length.
pub(crate) struct GzipReader<R: BufRead> {
    /// Nothing only while one member follows another.
    state: Option<State<R>>,
    checksum: crc32fast::Hasher,
    length: u32,
}

enum State<R: BufRead> {
    /// Before a member's header, or at the end.
    Between {
        raw: R,
        first: bool,
    },
    Within(DeflateDecoder<R>),
}

impl<R: BufRead> GzipReader<R> {
    pub(crate) fn new(raw: R) -> Self {
        let state = Some(State::Between { raw, first: true });
        Self { state, checksum: crc32fast::Hasher::new(), length: 0 }
    }

    /// Checks what was read against the member's trailer.
    fn end_member(&mut self, mut raw: R) -> Result<State<R>> {
        let (checksum, length) = (word(&mut raw)?, word(&mut raw)?);
        if checksum != std::mem::take(&mut self.checksum).finalize() || length != std::mem::take(&mut self.length) {
            return Err(Error::new(ErrorKind::InvalidData, "the gzip checksum differs"));
        }
        Ok(State::Between { raw, first: false })
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.state.take() {
                None => return Err(Error::other("read on after an error")),
                Some(State::Between { mut raw, first }) => {
                    // Behind the last member tapes and block devices have zeros.
                    if !first && skip_zeros(&mut raw)? {
                        self.state = Some(State::Between { raw, first });
                        return Ok(0);
                    }
                    skip_header(&mut raw)?;
                    self.state = Some(State::Within(DeflateDecoder::new(raw)));
                }
                Some(State::Within(mut inner)) => {
                    let read = inner.read(buffer)?;
                    if read > 0 || buffer.is_empty() {
                        self.checksum.update(&buffer[..read]);
                        self.length = self.length.wrapping_add(read as u32);
                        self.state = Some(State::Within(inner));
                        return Ok(read);
                    }
                    self.state = Some(self.end_member(inner.into_inner())?);
                }
            }
        }
    }
}

/// Goes on behind zeros; whether nothing follows.
fn skip_zeros(raw: &mut impl BufRead) -> Result<bool> {
    loop {
        let ready = raw.fill_buf()?;
        if ready.is_empty() {
            return Ok(true);
        }
        let zeros = ready.iter().take_while(|byte| **byte == 0).count();
        let is_over = zeros < ready.len();
        raw.consume(zeros);
        if is_over {
            return Ok(false);
        }
    }
}

fn skip_header(raw: &mut impl BufRead) -> Result<()> {
    let mut header = [0; 10];
    raw.read_exact(&mut header)?;
    if header[..3] != [0x1f, 0x8b, 8] {
        return Err(Error::new(ErrorKind::InvalidData, "it is no gzip, or something else follows it"));
    }
    let flags = header[3];
    if flags & 4 != 0 {
        let mut length = [0; 2];
        raw.read_exact(&mut length)?;
        std::io::copy(&mut raw.by_ref().take(u64::from(u16::from_le_bytes(length))), &mut std::io::sink())?;
    }
    // Name and comment.
    for flag in [8, 16] {
        if flags & flag != 0 {
            raw.skip_until(0)?;
        }
    }
    if flags & 2 != 0 {
        raw.read_exact(&mut [0; 2])?;
    }
    Ok(())
}

fn word(raw: &mut impl Read) -> Result<u32> {
    let mut word = [0; 4];
    raw.read_exact(&mut word)?;
    Ok(u32::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, GzBuilder};
    use std::io::Write;

    fn packed(text: &[u8]) -> Vec<u8> {
        let builder = GzBuilder::new().filename("name").comment("comment").extra(vec![1, 2, 3]);
        let mut writer = builder.write(Vec::new(), Compression::default());
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        GzipReader::new(bytes).read_to_end(&mut text).map(|_| text)
    }

    #[test]
    fn members_are_read_one_after_another() {
        let long: Vec<u8> = (0..300_000u32).flat_map(|n| (n % 251).to_le_bytes()).collect();
        assert_eq!(unpacked(&packed(&long)).unwrap(), long);
        assert_eq!(unpacked(&[packed(b"one"), packed(b""), packed(b"two")].concat()).unwrap(), b"onetwo");
    }

    #[test]
    fn zeros_behind_the_last_member_are_no_damage() {
        for zeros in [1, 9, 70_000] {
            assert_eq!(unpacked(&[packed(b"one"), vec![0; zeros]].concat()).unwrap(), b"one");
        }
        assert_eq!(unpacked(&[packed(b"one"), vec![0; 7], packed(b"two")].concat()).unwrap(), b"onetwo");
        assert!(unpacked(&[packed(b"one"), vec![0; 7], b"rubbish, rubbish".to_vec()].concat()).is_err());
        assert!(unpacked(&[0; 64]).is_err());
    }

    #[test]
    fn damage_is_found() {
        let whole = packed(b"some text to be damaged, some text");
        for cut in 0..whole.len() {
            assert!(unpacked(&whole[..cut]).is_err(), "{cut}");
        }
        for at in whole.len() - 8..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert_eq!(unpacked(&flipped).unwrap_err().to_string(), "the gzip checksum differs");
        }
        assert!(unpacked(b"{\"a\": 1}, {\"a\": 2}").unwrap_err().to_string().starts_with("it is no gzip"));
        assert!(unpacked(&[whole, b"rubbish behind it".to_vec()].concat()).is_err());
    }

    proptest::proptest! {
        /// However it is damaged: what is read without an error is what `flate2` reads.
        #[test]
        fn fuzz_gzip(bytes in codepair_mutations::mutated(vec![packed(b"one and one"), [packed(b"one"), packed(b"two")].concat()], &["\u{1f}", "\0"])) {
            let mut theirs = Vec::new();
            let read = flate2::bufread::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut theirs);
            if let (Ok(ours), Ok(_)) = (unpacked(&bytes), read) {
                proptest::prop_assert_eq!(ours, theirs);
            }
        }
    }

    /// Beside the library's own reader, in turn.
    #[test]
    #[ignore = "a measurement: just bench parts"]
    fn part_gzip() {
        let row = |n: u64| {
            format!("{{\"code\": \"def f{n}(value):\\n    return value * {}\", \"doc\": \"Say {n}.\"}}\n", n * n)
        };
        let text: String = (0..800_000).map(row).collect();
        let packed = packed(text.as_bytes());
        let timed = |read: &dyn Fn() -> u64| {
            let began = std::time::Instant::now();
            assert_eq!(read(), text.len() as u64);
            began.elapsed().as_secs_f64()
        };
        let own = || std::io::copy(&mut GzipReader::new(packed.as_slice()), &mut std::io::sink()).unwrap();
        let library = || {
            std::io::copy(&mut flate2::bufread::MultiGzDecoder::new(packed.as_slice()), &mut std::io::sink()).unwrap()
        };
        codepair_runtime::testing::compare("gzip", || timed(&own), "flate2", || timed(&library));
    }
}
