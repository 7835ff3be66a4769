//! `mma.sync` and `ldmatrix` against plain products. Each lane gathers and scatters its fragments by the tables of the
//! PTX ISA (9.7.14.5), written here by hand for every shape.

use lehr_ptx_sim::Grid;

use crate::common::{kernel, run_words};

/// Row and column of each element of A, B and C that a lane holds, in the order of its registers.
struct Layout {
    name: &'static str,
    types: &'static str,
    k: usize,
    /// Elements in a register of A and B.
    per_reg: usize,
    a: fn(usize, usize) -> (usize, usize),
    b: fn(usize, usize) -> (usize, usize),
}

// ISA: "groupID = %laneid >> 2, threadID_in_group = %laneid % 4"; i is the element's number.
const LAYOUTS: [Layout; 7] = [
    Layout {
        name: "m16n8k4",
        types: "f32.tf32.tf32.f32",
        k: 4,
        per_reg: 1,
        a: |lane, i| (if i == 0 { lane >> 2 } else { (lane >> 2) + 8 }, lane % 4),
        b: |lane, _| (lane % 4, lane >> 2),
    },
    Layout {
        name: "m16n8k8",
        types: "f32.tf32.tf32.f32",
        k: 8,
        per_reg: 1,
        a: |lane, i| {
            (if i == 0 || i == 2 { lane >> 2 } else { (lane >> 2) + 8 }, if i < 2 { lane % 4 } else { lane % 4 + 4 })
        },
        b: |lane, i| (if i == 0 { lane % 4 } else { lane % 4 + 4 }, lane >> 2),
    },
    Layout {
        name: "m16n8k8",
        types: "f32.f16.f16.f32",
        k: 8,
        per_reg: 2,
        a: |lane, i| (if i < 2 { lane >> 2 } else { (lane >> 2) + 8 }, (lane % 4) * 2 + (i & 1)),
        b: |lane, i| ((lane % 4) * 2 + i, lane >> 2),
    },
    Layout { name: "m16n8k16", types: "f32.f16.f16.f32", k: 16, per_reg: 2, a: half_a16, b: half_b16 },
    Layout { name: "m16n8k16", types: "f32.bf16.bf16.f32", k: 16, per_reg: 2, a: half_a16, b: half_b16 },
    Layout {
        name: "m16n8k16",
        types: "s32.s8.s8.s32",
        k: 16,
        per_reg: 4,
        a: |lane, i| (if i < 4 { lane >> 2 } else { (lane >> 2) + 8 }, (lane % 4) * 4 + (i & 3)),
        b: |lane, i| ((lane % 4) * 4 + i, lane >> 2),
    },
    Layout {
        name: "m16n8k32",
        types: "s32.u8.s8.s32",
        k: 32,
        per_reg: 4,
        a: |lane, i| {
            let row = if i < 4 || (8..12).contains(&i) { lane >> 2 } else { (lane >> 2) + 8 };
            (row, if i < 8 { (lane % 4) * 4 + (i & 3) } else { (lane % 4) * 4 + (i & 3) + 16 })
        },
        b: |lane, i| (if i < 4 { (lane % 4) * 4 + (i & 3) } else { (lane % 4) * 4 + (i & 3) + 16 }, lane >> 2),
    },
];

fn half_a16(lane: usize, i: usize) -> (usize, usize) {
    let row = if i < 2 || (4..6).contains(&i) { lane >> 2 } else { (lane >> 2) + 8 };
    (row, if i < 4 { (lane % 4) * 2 + (i & 1) } else { (lane % 4) * 2 + (i & 1) + 8 })
}

fn half_b16(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { (lane % 4) * 2 + (i & 1) } else { (lane % 4) * 2 + (i & 1) + 8 }, lane >> 2)
}

/// The bits of a small integer in a multiplicand's type; such values are exact in every type.
fn element(ty: &str, value: i32) -> u32 {
    match ty {
        "tf32" => (value as f32).to_bits(),
        "bf16" => (value as f32).to_bits() >> 16,
        "s8" | "u8" => value as u8 as u32,
        _ => {
            let bits = (value as f32).to_bits();
            let (sign, exponent, mantissa) = (bits >> 31, (bits >> 23 & 0xff) as i32 - 127, bits >> 13 & 0x3ff);
            if value == 0 { 0 } else { sign << 15 | ((exponent + 15) as u32) << 10 | mantissa }
        }
    }
}

fn vector(prefix: &str, count: usize) -> String {
    let names: Vec<String> = (0..count).map(|i| format!("{prefix}{i}")).collect();
    format!("{{{}}}", names.join(", "))
}

#[test]
fn mma_multiplies_by_its_definition() {
    for layout in &LAYOUTS {
        let types: Vec<&str> = layout.types.split('.').collect();
        let (a_type, b_type) = (types[1], types[2]);
        let integer = types[0] == "s32";
        let a_value = |r: usize, c: usize| ((r * 7 + c * 3) % 11) as i32 - if a_type == "u8" { 0 } else { 5 };
        let b_value = |r: usize, c: usize| ((r * 5 + c * 2) % 9) as i32 - 4;
        let c_value = |r: usize, c: usize| (r as i32) * 10 - (c as i32);
        let a_regs = 16 * layout.k / 32 / layout.per_reg;
        let b_regs = a_regs / 2;
        let mut input = Vec::new();
        for lane in 0..32 {
            for (regs, ty, place, value) in [
                (a_regs, a_type, layout.a, &a_value as &dyn Fn(usize, usize) -> i32),
                (b_regs, b_type, layout.b, &b_value),
            ] {
                for reg in 0..regs {
                    let mut word = 0;
                    for e in 0..layout.per_reg {
                        let (r, c) = place(lane, reg * layout.per_reg + e);
                        word |= element(ty, value(r, c)) << (32 / layout.per_reg * e) as u32;
                    }
                    input.push(word);
                }
            }
            for i in 0..4 {
                let (r, c) = ((lane >> 2) + if i < 2 { 0 } else { 8 }, (lane % 4) * 2 + (i & 1));
                let value = c_value(r, c);
                input.push(if integer { value as u32 } else { (value as f32).to_bits() });
            }
        }
        let words = a_regs + b_regs + 4;
        let (acc, acc_reg) = if integer { ("s32", "%i") } else { ("f32", "%f") };
        let mut body =
            format!("mul.lo.u32 %r1, %id, {};\ncvt.u64.u32 %rd1, %r1;\nadd.s64 %rd1, %rd1, %in;\n", words * 4);
        for i in 0..a_regs + b_regs {
            body += &format!("ld.global.b32 %m{i}, [%rd1+{}];\n", 4 * i);
        }
        for i in 0..4 {
            body += &format!("ld.global.{acc} {acc_reg}{i}, [%rd1+{}];\n", 4 * (a_regs + b_regs + i));
        }
        let b: Vec<String> = (a_regs..a_regs + b_regs).map(|i| format!("%m{i}")).collect();
        body += &format!(
            "mma.sync.aligned.{}.row.col.{} {}, {}, {{{}}}, {};\n",
            layout.name,
            layout.types,
            vector(acc_reg, 4),
            vector("%m", a_regs),
            b.join(", "),
            vector(acc_reg, 4)
        );
        body += "mul.wide.u32 %rd2, %id, 16;\nadd.s64 %rd2, %rd2, %out;\n";
        body += &format!("st.global.v4.{acc} [%rd2], {};\n", vector(acc_reg, 4));
        let text = kernel(".reg .b32 %m<8>;\n.reg .s32 %i<4>;", &body);
        let (out, _) = run_words(&text, Grid::linear(1, 32), &input, 128);
        for lane in 0..32 {
            for i in 0..4 {
                let (r, c) = ((lane >> 2) + if i < 2 { 0 } else { 8 }, (lane % 4) * 2 + (i & 1));
                let expected = c_value(r, c) + (0..layout.k).map(|k| a_value(r, k) * b_value(k, c)).sum::<i32>();
                let found = out[lane * 4 + i];
                let found = if integer { found as i32 } else { f32::from_bits(found) as i32 };
                assert_eq!(found, expected, "{} {} lane {lane} element {i}", layout.name, layout.types);
            }
        }
    }
}

#[test]
fn mma_accumulates_in_f16() {
    // A is the identity in its first eight columns, B counts: the product is B on top of zeros.
    let mut body = String::from(
        "shr.u32 %r1, %id, 2; and.b32 %r2, %id, 3; shl.b32 %r3, %r2, 1;
         setp.eq.u32 %p1, %r1, %r3; add.u32 %r4, %r3, 1; setp.eq.u32 %p2, %r1, %r4;
         selp.b32 %r5, 0x3c00, 0, %p1; @%p2 mov.b32 %r5, 0x3c000000;
         mov.b32 %r6, 0; mov.b32 %r7, 0x44004000; mov.b32 %r8, 0;
         mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%r9, %r10}, {%r5, %r6}, {%r7}, {%r8, %r8};
         mul.wide.u32 %rd2, %id, 8; add.s64 %rd2, %rd2, %out;",
    );
    body += "st.global.v2.b32 [%rd2], {%r9, %r10};";
    let (out, _) = run_words(&kernel("", &body), Grid::linear(1, 32), &[0], 64);
    for lane in 0..32 {
        // Row g of the product is row g of B, whose even rows are 2 and whose odd ones are 4.
        let row = lane >> 2;
        let half = if row % 2 == 0 { 0x4000 } else { 0x4400 };
        assert_eq!(out[lane * 2], half << 16 | half, "lane {lane}");
        assert_eq!(out[lane * 2 + 1], 0);
    }
}

#[test]
fn ldmatrix_and_stmatrix_move_fragments() {
    for trans in [false, true] {
        for count in [1, 2, 4] {
            let t = if trans { ".trans" } else { "" };
            let regs: Vec<String> = (4..4 + count).map(|i| format!("%r{i}")).collect();
            let regs = regs.join(", ");
            // 256 halves (numbers 0 to 255) go to shared memory, through fragments, and back from a second buffer.
            let body = format!(
                "mul.wide.u32 %rd1, %id, 16; add.s64 %rd2, %in, %rd1; ld.global.v4.b32 {{%r0, %r1, %r2, %r3}}, [%rd2];
                 shl.b32 %r9, %id, 4; mov.u32 %r10, src; add.u32 %r10, %r10, %r9;
                 st.shared.v4.b32 [%r10], {{%r0, %r1, %r2, %r3}};
                 bar.warp.sync 0xffffffff;
                 ldmatrix.sync.aligned.m8n8.x{count}{t}.shared.b16 {{{regs}}}, [%r10];
                 mov.u32 %r11, dst; add.u32 %r11, %r11, %r9;
                 stmatrix.sync.aligned.m8n8.x{count}{t}.shared.b16 [%r11], {{{regs}}};
                 mul.wide.u32 %rd3, %id, {}; add.s64 %rd3, %out, %rd3;
                 st.global.b32 [%rd3], %r4; {}
                 bar.warp.sync -1;
                 setp.lt.u32 %p1, %id, {}; @!%p1 bra END;
                 ld.shared.v4.b32 {{%r0, %r1, %r2, %r3}}, [%r11]; add.s64 %rd2, %out, %rd1;
                 st.global.v4.b32 [%rd2+512], {{%r0, %r1, %r2, %r3}};
                 END:",
                4 * count,
                (1..count).map(|i| format!("st.global.b32 [%rd3+{}], %r{};", 4 * i, 4 + i)).collect::<String>(),
                8 * count
            );
            let declarations = ".shared .align 16 .b8 src[512];\n.shared .align 16 .b8 dst[512];";
            let input: Vec<u32> = (0..128).map(|i| (2 * i + 1) << 16 | (2 * i)).collect();
            let (out, _) = run_words(&kernel(declarations, &body), Grid::linear(1, 32), &input, 256);
            for lane in 0..32u32 {
                for m in 0..count as u32 {
                    let at = |r: u32, c: u32| m * 64 + r * 8 + c;
                    let (g, t) = (lane / 4, lane % 4);
                    let (low, high) =
                        if trans { (at(2 * t, g), at(2 * t + 1, g)) } else { (at(g, 2 * t), at(g, 2 * t + 1)) };
                    assert_eq!(out[(lane * count as u32 + m) as usize], high << 16 | low);
                }
            }
            assert_eq!(out[128..128 + 32 * count], input[..32 * count], "stored as it was loaded");
        }
    }
}
