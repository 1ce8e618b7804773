//! What one core of this machine can do at most: multiply-adds on registers alone, no memory. Benchmarks hold the
//! kernels against these.

/// A loop of dependent-free multiply-adds.
#[derive(Clone, Copy)]
pub struct Ceiling {
    /// The instruction.
    pub name: &'static str,
    /// Runs it on this thread for `rounds` rounds; gives the floating-point operations done.
    pub run: fn(rounds: u64) -> u64,
}

/// The loops this processor can run: f32 first, the widest there is; then bf16 dot products where it has them.
pub fn ceilings() -> Vec<Ceiling> {
    let mut have = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            have.push(Ceiling { name: "f32 fma 512", run: |n| x86::run_f32_512(n) });
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            have.push(Ceiling { name: "f32 fma 256", run: |n| x86::run_f32_256(n) });
        }
        if crate::kernels::isa::available().contains(&crate::kernels::isa::Isa::Amx) {
            have.push(Ceiling { name: "tdpbf16ps tiles", run: crate::kernels::bf16::amx::ceiling });
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
            have.push(Ceiling { name: "vdpbf16ps 512", run: |n| x86::run_bf16_512(n) });
        }
    }
    if have.is_empty() {
        have.push(Ceiling { name: "f32 mul add", run: portable });
    }
    have
}

/// Whether the processor multiplies pairs of bf16 into f32 sums (`vdpbf16ps`).
pub fn has_bf16_dot() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

fn portable(rounds: u64) -> u64 {
    let (a, b) = (std::hint::black_box(1e-3f32), std::hint::black_box(1e-3f32));
    let mut sums = [0f32; 64];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum += a * b;
        }
        sums = std::hint::black_box(sums);
    }
    rounds * 2 * 64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm256_fmadd_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
        _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_set1_epi16, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };
    use std::hint::black_box;

    /// Accumulators: more than latency (4 to 6 cycles) times units (2) needs, fewer than there are registers.
    const SUMS_512: usize = 24;
    const SUMS_256: usize = 12;

    pub(super) fn run_f32_512(rounds: u64) -> u64 {
        // SAFETY: listed only where the processor has AVX-512F.
        unsafe { f32_512(rounds) }
        rounds * 2 * 16 * SUMS_512 as u64
    }

    pub(super) fn run_f32_256(rounds: u64) -> u64 {
        // SAFETY: listed only where the processor has AVX2 and FMA.
        unsafe { f32_256(rounds) }
        rounds * 2 * 8 * SUMS_256 as u64
    }

    pub(super) fn run_bf16_512(rounds: u64) -> u64 {
        // SAFETY: listed only where the processor has AVX-512F and AVX-512 BF16.
        unsafe { bf16_512(rounds) }
        rounds * 2 * 32 * SUMS_512 as u64
    }

    #[target_feature(enable = "avx512f")]
    fn f32_512(rounds: u64) {
        let (a, b) = (_mm512_set1_ps(black_box(1e-3)), _mm512_set1_ps(black_box(1e-3)));
        let mut sums = [_mm512_setzero_ps(); SUMS_512];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
        let mut out = [0f32; 16];
        for sum in sums {
            // SAFETY: sixteen values go to sixteen.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
            black_box(&out);
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn f32_256(rounds: u64) {
        let (a, b) = (_mm256_set1_ps(black_box(1e-3)), _mm256_set1_ps(black_box(1e-3)));
        let mut sums = [_mm256_setzero_ps(); SUMS_256];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
        let mut out = [0f32; 8];
        for sum in sums {
            // SAFETY: eight values go to eight.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
            black_box(&out);
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn bf16_512(rounds: u64) {
        // 0x3a83 is 1e-3 in bf16.
        let pairs = _mm512_set1_epi16(black_box(0x3a83));
        // SAFETY: both are 512 bits in which every pattern is a value.
        let pair = unsafe { std::mem::transmute::<__m512i, __m512bh>(pairs) };
        let (a, b) = (pair, pair);
        let mut sums = [_mm512_setzero_ps(); SUMS_512];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        let mut out = [0f32; 16];
        for sum in sums {
            // SAFETY: sixteen values go to sixteen.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
            black_box(&out);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_loop_runs_and_counts() {
        let have = super::ceilings();
        assert!(have.iter().all(|c| (c.run)(1000) >= 64_000), "operations of a thousand rounds");
        assert_eq!(have.iter().any(|c| c.name.contains("bf16")), super::has_bf16_dot());
    }
}
