//! Devices that train one adapter together: each has the whole model and forms the gradients of its own rows, and all take the
//! same step with the sum.

use super::{Accelerator, Backend as _, Memory};
use crate::error::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// Forms sums over devices.
pub trait AllReduce: Send + Sync {
    /// What does it, as results depend on it: `NCCL`.
    fn name(&self) -> &'static str;

    /// The sum of the first `n` f32 values of all buffers, put in place of each. Device `i` of the group has `buffers[i]`. Waits for
    /// nothing where it can be helped; every device gets the same bits.
    fn sum(&self, buffers: &[&Memory], n: usize) -> Result<()>;
}

/// Devices in their order, and what sums over them. Clones are the same devices.
#[derive(Clone)]
pub struct Group {
    members: Vec<Accelerator>,
    sums: Arc<dyn AllReduce>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Group {
    /// Sums by way of the host: always possible, and an adapter's gradients are few.
    pub fn by_host(members: Vec<Accelerator>) -> Result<Self> {
        let sums = Arc::new(ByHost(members.clone()));
        Self::new(members, sums)
    }

    /// Sums by `sums`. Errors: no device.
    pub fn new(members: Vec<Accelerator>, sums: Arc<dyn AllReduce>) -> Result<Self> {
        if members.is_empty() {
            return Err(Error::Device("a group without devices".into()));
        }
        Ok(Self { members, sums })
    }

    /// The devices: one at least.
    pub fn members(&self) -> &[Accelerator] {
        &self.members
    }

    /// `cuda:0`, or all names.
    pub fn name(&self) -> String {
        self.members.iter().map(Accelerator::name).collect::<Vec<_>>().join(", ")
    }

    /// What a run's bits depend on besides the cards.
    pub fn arithmetic(&self) -> String {
        let one = self.members.first().map_or("", Accelerator::arithmetic);
        if self.members.len() == 1 { one.into() } else { format!("{one}, sums by {}", self.sums.name()) }
    }

    /// [`AllReduce::sum`]; nothing to do for one device. Errors: not a buffer for each.
    pub fn sum(&self, buffers: &[&Memory], n: usize) -> Result<()> {
        if buffers.len() != self.members.len() {
            let what = format!("{} buffers for {} devices", buffers.len(), self.members.len());
            return Err(Error::Device(what));
        }
        if buffers.len() == 1 || n == 0 { Ok(()) } else { self.sums.sum(buffers, n) }
    }
}

/// By way of the host, in the order of the devices.
struct ByHost(Vec<Accelerator>);

impl AllReduce for ByHost {
    fn name(&self) -> &'static str {
        "the host"
    }

    fn sum(&self, buffers: &[&Memory], n: usize) -> Result<()> {
        let mut total = vec![0f32; n];
        for (on, buffer) in self.0.iter().zip(buffers) {
            let values = on.download_floats(buffer)?;
            if values.len() < n {
                return Err(Error::Device(format!("{} values of {n} to add up", values.len())));
            }
            total.iter_mut().zip(&values).for_each(|(t, v)| *t += v);
        }
        let bytes: Vec<u8> = total.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.0.iter().zip(buffers).try_for_each(|(on, buffer)| on.write(buffer, &bytes))
    }
}
