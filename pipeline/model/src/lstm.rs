//! A long short-term memory cell (Hochreiter & Schmidhuber, 1997, with forget gates) and a run of it over a padded
//! sequence.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use burn::tensor::backend::Backend;

/// Hidden and cell state, [B, H] each.
#[derive(Clone, Debug)]
pub(crate) struct State<B: Backend> {
    pub(crate) hidden: Tensor<B, 2>,
    pub(crate) cell: Tensor<B, 2>,
}

impl<B: Backend> State<B> {
    pub(crate) fn zeros(rows: usize, hidden: usize, device: &B::Device) -> Self {
        Self { hidden: Tensor::zeros([rows, hidden], device), cell: Tensor::zeros([rows, hidden], device) }
    }

    /// The rows named, in that order.
    pub(crate) fn rows(self, rows: Tensor<B, 1, burn::tensor::Int>) -> Self {
        Self { hidden: self.hidden.select(0, rows.clone()), cell: self.cell.select(0, rows) }
    }
}

/// One cell.
#[derive(Module, Debug)]
pub(crate) struct LstmCell<B: Backend> {
    input: Linear<B>,
    recurrent: Linear<B>,
}

impl<B: Backend> LstmCell<B> {
    pub(crate) fn new(input: usize, hidden: usize, device: &B::Device) -> Self {
        Self {
            input: LinearConfig::new(input, 4 * hidden).init(device),
            recurrent: LinearConfig::new(hidden, 4 * hidden).with_bias(false).init(device),
        }
    }

    /// One step over `input`, [B, input].
    pub(crate) fn step(&self, input: Tensor<B, 2>, state: State<B>) -> State<B> {
        let gates = self.input.forward(input) + self.recurrent.forward(state.hidden);
        let mut gates = gates.chunk(4, 1).into_iter();
        let (Some(keep), Some(write), Some(new), Some(show)) = (gates.next(), gates.next(), gates.next(), gates.next())
        else {
            unreachable!("four gates are cut into four")
        };
        let cell = sigmoid(keep) * state.cell + sigmoid(write) * new.tanh();
        State { hidden: sigmoid(show) * cell.clone().tanh(), cell }
    }

    /// Runs over a sequence of [B, input], forwards or backwards, and returns the hidden states in the sequence's order
    /// and the last state. Where the mask ([B, 1] a step) is 0 the state is carried over unchanged.
    pub(crate) fn run(
        &self,
        inputs: &[Tensor<B, 2>],
        masks: &[Tensor<B, 2>],
        start: State<B>,
        backwards: bool,
    ) -> (Vec<Tensor<B, 2>>, State<B>) {
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        if backwards {
            order.reverse();
        }
        let mut state = start;
        let mut hidden = Vec::with_capacity(inputs.len());
        for at in order {
            let mask = masks[at].clone();
            let next = self.step(inputs[at].clone(), state.clone());
            state = State {
                hidden: state.hidden.clone() + (next.hidden - state.hidden) * mask.clone(),
                cell: state.cell.clone() + (next.cell - state.cell) * mask,
            };
            hidden.push(state.hidden.clone());
        }
        if backwards {
            hidden.reverse();
        }
        (hidden, state)
    }
}

/// Cuts [B, S, X] into S tensors [B, X].
pub(crate) fn steps<B: Backend>(sequence: Tensor<B, 3>) -> Vec<Tensor<B, 2>> {
    let length = sequence.dims()[1];
    (0..length).map(|at| sequence.clone().narrow(1, at, 1).squeeze_dim(1)).collect()
}
