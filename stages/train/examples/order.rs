//! The batches of a training, for whoever wants to train the same elsewhere: `order SEED BATCH_SIZE EPOCHS < LENGTHS`.
//!
//! Lengths are the tokens of each example, source and target together, one a line; a line a batch comes out, JSON, the examples by
//! number. `bench/models/translation.py` trains PyTorch's models with it.

use std::io::{Write as _, stdin, stdout};

use anyhow::{Context as _, Result};
use codepair_train::Epoch;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, what: &str| -> Result<u64> { Ok(words.get(at).context(what.to_owned())?.parse()?) };
    let (seed, size, epochs) = (number(0, "SEED")?, number(1, "BATCH_SIZE")?, number(2, "EPOCHS")?);
    let lengths = stdin().lines().map(|line| Ok(line?.trim().parse()?)).collect::<Result<Vec<usize>>>()?;
    let mut out = stdout().lock();
    for epoch in 1..=epochs as u32 {
        let order = Epoch::new(lengths.len() as u64, size as usize, None, seed, epoch);
        for batch in order.batches_from(0, |example| Ok(lengths[example as usize])) {
            writeln!(out, "{:?}", batch?)?;
        }
    }
    Ok(())
}
