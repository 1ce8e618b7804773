//! Measures how fast each weight format decodes on one core: `cargo run --release -p galen-ops --example dequant_speed`.
use galen_ops::quant::FORMATS;
use std::time::Instant;

fn main() {
    for format in FORMATS {
        let blocks = 65_536 / format.block_size;
        let bytes = vec![0x35u8; blocks * format.block_bytes];
        let mut out = vec![0f32; blocks * format.block_size];
        let start = Instant::now();
        let mut rounds = 0u32;
        while start.elapsed().as_millis() < 100 {
            (format.dequantize)(std::hint::black_box(&bytes), &mut out);
            std::hint::black_box(&mut out);
            rounds += 1;
        }
        let per_second = f64::from(rounds) * out.len() as f64 / start.elapsed().as_secs_f64();
        println!("{:8} {:6.2} Gelem/s", format.name, per_second / 1e9);
    }
}
