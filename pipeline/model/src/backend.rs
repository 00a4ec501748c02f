//! The backends a binary can hold.

use std::any::TypeId;

use anyhow::Result;
use burn::backend::{Autodiff, Flex};
use codepair_runtime::{Config, config_error};

/// burn's CPU backend.
pub type Cpu = Flex;
/// Its device.
pub type CpuDevice = burn::backend::flex::FlexDevice;
/// With gradients.
pub type TrainCpu = Autodiff<Cpu>;

/// burn's CUDA backend.
#[cfg(feature = "cuda")]
pub type Cuda = burn::backend::Cuda;
/// Its device.
#[cfg(feature = "cuda")]
pub type CudaDevice = burn::backend::cuda::CudaDevice;
/// With gradients.
#[cfg(feature = "cuda")]
pub type TrainCuda = Autodiff<Cuda>;

/// Whether what was asked of a backend is there at once, so that reading it costs nothing: on the processor alone.
#[must_use]
pub fn is_eager<B: 'static>() -> bool {
    TypeId::of::<B>() == TypeId::of::<Cpu>()
}

/// Where tensors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda,
}

impl Device {
    /// That `[resources.STAGE]` names a device which this binary could use, on whatever machine it will run.
    ///
    /// # Errors
    /// Exit 2: there is no such device, or the binary was built without it.
    pub fn check_config(config: &Config, stage: &str) -> Result<()> {
        let known = match config.resources(stage)?.device.as_deref() {
            None => Ok(()),
            #[cfg(feature = "cuda")]
            Some("cuda") => Ok(()),
            Some(other) => Self::parse(other).map(drop),
        };
        known.map_err(|why| config_error(format!("resources.{stage}.device: {why}")))
    }

    /// Reads `cpu` or `cuda`.
    ///
    /// # Errors
    /// There is no such device here; the text says why.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "cpu" => Ok(Self::Cpu),
            #[cfg(feature = "cuda")]
            "cuda" if cuda_is_there() => Ok(Self::Cuda),
            #[cfg(feature = "cuda")]
            "cuda" => Err("device cuda: this machine has no NVIDIA driver (libcuda.so.1)".to_owned()),
            #[cfg(not(feature = "cuda"))]
            "cuda" => Err("device cuda: this binary was built without it; build with --features cuda".to_owned()),
            other => Err(format!("device {other}: there are cpu and cuda")),
        }
    }
}

/// Whether the CUDA driver can be loaded: asking burn for a device without one panics in another thread.
#[cfg(feature = "cuda")]
#[allow(unsafe_code, reason = "loading a library is the probe")]
fn cuda_is_there() -> bool {
    // SAFETY: the name is a C string, and libcuda has no initialiser with side effects on this process.
    unsafe { !libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY).is_null() }
}
