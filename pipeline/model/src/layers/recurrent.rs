//! Recurrent cells, a run of one over a padded sequence, and an encoder of two.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::sigmoid;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

use crate::batch::Tokens;
use crate::layers::Rows;

/// Hidden state [B, H], and the cell's where it has one.
#[derive(Clone, Debug)]
pub(crate) struct CellState<B: Backend> {
    pub(crate) hidden: Tensor<B, 2>,
    pub(crate) cell: Option<Tensor<B, 2>>,
}

impl<B: Backend> CellState<B> {
    /// Where `keep` [B, 1] is 0 this state, where it is 1 the next.
    fn towards(self, next: Self, keep: &Tensor<B, 2>) -> Self {
        let mix = |old: Tensor<B, 2>, new: Tensor<B, 2>| old.clone() + (new - old) * keep.clone();
        Self { hidden: mix(self.hidden, next.hidden), cell: self.cell.zip(next.cell).map(|(old, new)| mix(old, new)) }
    }
}

impl<B: Backend> Rows<B> for CellState<B> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        Self { hidden: Rows::select(self.hidden, rows), cell: Rows::select(self.cell, rows) }
    }
}

/// Which cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellKind {
    Elman,
    Lstm,
}

/// A cell of either kind.
#[derive(Module, Debug)]
pub(crate) enum Cell<B: Backend> {
    /// A simple recurrent network (Elman, 1990).
    Elman(Gates<B>),
    /// Long short-term memory (Hochreiter & Schmidhuber, 1997), with forget gates.
    Lstm(Gates<B>),
}

/// What input and hidden state add up to, for all gates at once.
#[derive(Module, Debug)]
pub(crate) struct Gates<B: Backend> {
    input: Linear<B>,
    recurrent: Linear<B>,
}

impl<B: Backend> Gates<B> {
    fn new(input: usize, hidden: usize, gates: usize, device: &B::Device) -> Self {
        Self {
            input: LinearConfig::new(input, gates * hidden).init(device),
            recurrent: LinearConfig::new(hidden, gates * hidden).with_bias(false).init(device),
        }
    }

    fn forward(&self, input: Tensor<B, 2>, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        self.input.forward(input) + self.recurrent.forward(hidden)
    }
}

impl<B: Backend> Cell<B> {
    pub(crate) fn new(kind: CellKind, input: usize, hidden: usize, device: &B::Device) -> Self {
        match kind {
            CellKind::Elman => Self::Elman(Gates::new(input, hidden, 1, device)),
            CellKind::Lstm => Self::Lstm(Gates::new(input, hidden, 4, device)),
        }
    }

    /// A state whose hidden part is given.
    pub(crate) fn starting(&self, hidden: Tensor<B, 2>) -> CellState<B> {
        let cell = matches!(self, Self::Lstm(_)).then(|| hidden.zeros_like());
        CellState { hidden, cell }
    }

    /// One step over `input`, [B, input].
    pub(crate) fn step(&self, input: Tensor<B, 2>, state: CellState<B>) -> CellState<B> {
        match self {
            Self::Elman(gates) => CellState { hidden: gates.forward(input, state.hidden).tanh(), cell: None },
            Self::Lstm(gates) => lstm(gates.forward(input, state.hidden.clone()), state),
        }
    }

    /// Runs over a sequence of [B, input], forwards or backwards, and returns the hidden states in the sequence's order
    /// and the last state. Where the mask ([B, 1] a step) is 0 the state is carried over unchanged.
    fn run(
        &self,
        inputs: &[Tensor<B, 2>],
        masks: &[Tensor<B, 2>],
        start: CellState<B>,
        backwards: bool,
    ) -> (Vec<Tensor<B, 2>>, CellState<B>) {
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        if backwards {
            order.reverse();
        }
        let mut state = start;
        let mut hidden = Vec::with_capacity(inputs.len());
        for at in order {
            let next = self.step(inputs[at].clone(), state.clone());
            state = state.towards(next, &masks[at]);
            hidden.push(state.hidden.clone());
        }
        if backwards {
            hidden.reverse();
        }
        (hidden, state)
    }
}

fn lstm<B: Backend>(gates: Tensor<B, 2>, state: CellState<B>) -> CellState<B> {
    let mut gates = gates.chunk(4, 1).into_iter();
    let (Some(keep), Some(write), Some(new), Some(show)) = (gates.next(), gates.next(), gates.next(), gates.next())
    else {
        unreachable!("four gates are cut into four")
    };
    let before = state.cell.unwrap_or_else(|| state.hidden.zeros_like());
    let cell = sigmoid(keep) * before + sigmoid(write) * new.tanh();
    CellState { hidden: sigmoid(show) * cell.clone().tanh(), cell: Some(cell) }
}

/// Reads a source forwards and backwards, and makes the decoder's first hidden state of both ends.
#[derive(Module, Debug)]
pub(crate) struct Encoder<B: Backend> {
    forward: Cell<B>,
    backward: Cell<B>,
    bridge: Linear<B>,
    hidden: usize,
}

impl<B: Backend> Encoder<B> {
    pub(crate) fn new(kind: CellKind, embedding: usize, hidden: usize, device: &B::Device) -> Self {
        Self {
            forward: Cell::new(kind, embedding, hidden, device),
            backward: Cell::new(kind, embedding, hidden, device),
            bridge: LinearConfig::new(2 * hidden, hidden).init(device),
            hidden,
        }
    }

    /// States [B, S, 2H] of the embedded source [B, S, E], and the decoder's first hidden state [B, H].
    pub(crate) fn read(&self, embedded: Tensor<B, 3>, source: &Tokens<B>) -> (Tensor<B, 3>, Tensor<B, 2>) {
        let start = || Tensor::zeros([source.rows(), self.hidden], &embedded.device());
        let inputs = steps(embedded.clone());
        let masks = steps(source.mask().unsqueeze_dim::<3>(2));
        let (forwards, last) = self.forward.run(&inputs, &masks, self.forward.starting(start()), false);
        let (backwards, first) = self.backward.run(&inputs, &masks, self.backward.starting(start()), true);
        let states = Tensor::cat(vec![Tensor::stack::<3>(forwards, 1), Tensor::stack::<3>(backwards, 1)], 2);
        let ends = Tensor::cat(vec![last.hidden, first.hidden], 1);
        (states, self.bridge.forward(ends).tanh())
    }
}

/// Cuts [B, S, X] into S tensors [B, X].
pub(crate) fn steps<B: Backend>(sequence: Tensor<B, 3>) -> Vec<Tensor<B, 2>> {
    let length = sequence.dims()[1];
    (0..length).map(|at| sequence.clone().narrow(1, at, 1).squeeze_dim(1)).collect()
}
