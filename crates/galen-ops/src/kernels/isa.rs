//! The one place where the instruction set is chosen.

use std::sync::OnceLock;

/// A kernel path. The same seed gives the same bits on one path, whatever the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// [`Self::Avx512Bf16`] with matrix products of bfloat16 tiles.
    Amx,
    /// [`Self::Avx512`] with dot products of bfloat16 pairs.
    Avx512Bf16,
    /// 512-bit vectors with fused multiply-add.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// Whatever the compiler makes of plain loops.
    Portable,
}

/// Every path, best first.
const ALL: [Isa; 5] = [Isa::Amx, Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Portable];

impl Isa {
    /// `amx`, `avx512_bf16`, `avx512`, `avx2`, `portable`: also what `GALEN_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512Bf16 => "avx512_bf16",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// Whether products of bfloat16 are faster than those of f32 here.
    pub fn prefers_bf16(self) -> bool {
        matches!(self, Self::Amx | Self::Avx512Bf16)
    }
}

/// The best path this processor has, or the one `GALEN_ISA` names if the processor has it.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let have = available();
        let wanted = std::env::var("GALEN_ISA").ok();
        have.iter().copied().find(|i| Some(i.name()) == wanted.as_deref()).unwrap_or(have[0])
    })
}

/// `GALEN_ISA` names no path, or one this processor does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("GALEN_ISA: {what}\nhint: unset it, or set it to one of {have}")]
pub struct IsaError {
    what: String,
    have: String,
}

/// Whether what `GALEN_ISA` asks for can be had: [`isa`] itself takes the best path when it cannot.
pub fn check() -> Result<Isa, IsaError> {
    check_name(std::env::var_os("GALEN_ISA").as_deref().map(std::ffi::OsStr::to_string_lossy).as_deref())?;
    Ok(isa())
}

fn check_name(wanted: Option<&str>) -> Result<(), IsaError> {
    let have: Vec<&str> = available().into_iter().map(Isa::name).collect();
    let Some(wanted) = wanted.filter(|w| !w.is_empty() && !have.contains(w)) else { return Ok(()) };
    let known = ALL.iter().any(|i| i.name() == wanted);
    let why = if known { "this processor does not have it" } else { "there is no such kernel path" };
    Err(IsaError { what: format!("`{wanted}`: {why}"), have: have.join(", ") })
}

/// The paths this processor can run, best first.
pub fn available() -> Vec<Isa> {
    let mut have = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
        {
            if is_x86_feature_detected!("avx512bf16") {
                if super::bf16::amx::usable() {
                    have.push(Isa::Amx);
                }
                have.push(Isa::Avx512Bf16);
            }
            have.push(Isa::Avx512);
        }
        if avx2 {
            have.push(Isa::Avx2);
        }
    }
    have.push(Isa::Portable);
    have
}

/// `a * b + c`, as the kernel path does it.
pub(crate) trait Fma {
    fn fma(a: f32, b: f32, c: f32) -> f32;
}

/// One rounding: an instruction on the vector paths.
pub(crate) struct Fused;

/// Two roundings: without the instruction, a fused product would be a slow library call.
pub(crate) struct Split;

impl Fma for Fused {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl Fma for Split {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// Compiles a function body once for each kernel path and calls the right one:
/// `multiversion! { fn name(args...) -> ret { body } }`. Inside, `F::fma(a, b, c)` is the path's multiply-add.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::inline_always, clippy::extra_unused_type_parameters)]
            fn body<F: $crate::kernels::isa::Fma>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi2")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body::<$crate::kernels::isa::Fused>($($arg),*) }
                #[target_feature(enable = "avx2,fma,bmi2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body::<$crate::kernels::isa::Fused>($($arg),*) }
                match $crate::kernels::isa::isa() {
                    // SAFETY: `isa` names a path only after detecting its features.
                    $crate::kernels::isa::Isa::Amx
                    | $crate::kernels::isa::Isa::Avx512Bf16
                    | $crate::kernels::isa::Isa::Avx512 => {
                        return unsafe { avx512($($arg),*) };
                    }
                    // SAFETY: as above.
                    $crate::kernels::isa::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::kernels::isa::Isa::Portable => {}
                }
            }
            body::<$crate::kernels::isa::Split>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_cannot_be_had_is_named_with_those_that_can() {
        assert_eq!(check_name(None), Ok(()));
        assert_eq!(check_name(Some("")), Ok(()));
        for isa in available() {
            assert_eq!(check_name(Some(isa.name())), Ok(()));
        }
        let error = check_name(Some("avx1024")).unwrap_err().to_string();
        assert!(error.contains("`avx1024`: there is no such kernel path"), "{error}");
        assert!(error.lines().any(|l| l.starts_with("hint: ") && l.ends_with("portable")), "{error}");
        for isa in ALL.into_iter().filter(|i| !available().contains(i)) {
            let error = check_name(Some(isa.name())).unwrap_err().to_string();
            assert!(error.contains("does not have it"), "{error}");
        }
    }
}
