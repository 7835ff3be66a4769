//! Integer arithmetic, logic and bit fields against Rust's own operators.

use crate::common::map;

const WORDS: [u32; 12] = [0, 1, 2, 7, 31, 32, 33, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_fffe, 0xffff_ffff];
const LONGS: [u64; 8] = [0, 1, 63, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, 0xffff_ffff, 0x1_0000_0003, u64::MAX];

fn pairs(values: &[u64]) -> Vec<Vec<u64>> {
    values.iter().flat_map(|&a| values.iter().map(move |&b| vec![a, b])).collect()
}

fn words() -> Vec<u64> {
    WORDS.iter().map(|&w| u64::from(w)).collect()
}

/// Checks an instruction of two 32-bit operands.
fn check32(instruction: &str, f: impl Fn(u32, u32) -> u32) {
    let rows = pairs(&words());
    let out = map(&[4, 4], 4, &format!("{instruction} %d, %a, %b;"), &rows);
    for (row, found) in rows.iter().zip(out) {
        let (a, b) = (row[0] as u32, row[1] as u32);
        assert_eq!(found as u32, f(a, b), "{instruction} {a:#x}, {b:#x}");
    }
}

fn check64(instruction: &str, f: impl Fn(u64, u64) -> u64) {
    let rows = pairs(&LONGS);
    let out = map(&[8, 8], 8, &format!("{instruction} %d, %a, %b;"), &rows);
    for (row, found) in rows.iter().zip(out) {
        assert_eq!(found, f(row[0], row[1]), "{instruction} {:#x}, {:#x}", row[0], row[1]);
    }
}

#[test]
fn two_operands_of_32_bits() {
    check32("add.u32", u32::wrapping_add);
    check32("add.s32", u32::wrapping_add);
    check32("add.sat.s32", |a, b| (a as i32).saturating_add(b as i32) as u32);
    check32("sub.s32", u32::wrapping_sub);
    check32("sub.sat.s32", |a, b| (a as i32).saturating_sub(b as i32) as u32);
    check32("mul.lo.s32", u32::wrapping_mul);
    check32("mul.hi.u32", |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    check32("mul.hi.s32", |a, b| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32);
    check32("min.u32", u32::min);
    check32("max.u32", u32::max);
    check32("min.s32", |a, b| (a as i32).min(b as i32) as u32);
    check32("max.s32", |a, b| (a as i32).max(b as i32) as u32);
    check32("max.relu.s32", |a, b| (a as i32).max(b as i32).max(0) as u32);
    check32("and.b32", |a, b| a & b);
    check32("or.b32", |a, b| a | b);
    check32("xor.b32", |a, b| a ^ b);
    check32("shl.b32", |a, b| a.checked_shl(b).unwrap_or(0));
    check32("shr.u32", |a, b| a.checked_shr(b).unwrap_or(0));
    check32("shr.b32", |a, b| a.checked_shr(b).unwrap_or(0));
    check32("shr.s32", |a, b| ((a as i32) >> b.min(31)) as u32);
    check32("mul24.lo.u32", |a, b| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff));
    check32("mul24.lo.s32", |a, b| (((a << 8) as i32) >> 8).wrapping_mul(((b << 8) as i32) >> 8) as u32);
}

#[test]
fn two_operands_of_64_and_16_bits() {
    check64("add.s64", u64::wrapping_add);
    check64("sub.u64", u64::wrapping_sub);
    check64("mul.lo.u64", u64::wrapping_mul);
    check64("mul.hi.u64", |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    check64("mul.hi.s64", |a, b| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64);
    check64("min.s64", |a, b| (a as i64).min(b as i64) as u64);
    check64("max.u64", u64::max);
    check64("xor.b64", |a, b| a ^ b);
    let rows: Vec<Vec<u64>> = [0u64, 1, 0x7fff, 0x8000, 0xffff, 300].iter().map(|&a| vec![a, 0xfff0]).collect();
    let check16 = |instruction: &str, f: &dyn Fn(u16, u16) -> u16| {
        let out = map(&[2, 2], 2, &format!("{instruction} %d, %a, %b;"), &rows);
        for (row, found) in rows.iter().zip(out) {
            assert_eq!(found as u16, f(row[0] as u16, row[1] as u16), "{instruction} {row:?}");
        }
    };
    check16("add.u16", &|a, b| a.wrapping_add(b));
    check16("mul.lo.s16", &|a, b| a.wrapping_mul(b));
    check16("mul.hi.u16", &|a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16);
    check16("min.s16", &|a, b| (a as i16).min(b as i16) as u16);
    check16("sub.s16", &|a, b| a.wrapping_sub(b));
}

#[test]
fn divisions() {
    let divisors: Vec<Vec<u64>> = pairs(&words()).into_iter().filter(|row| row[1] != 0).collect();
    for (instruction, f) in [
        ("div.u32", (|a: u32, b: u32| a / b) as fn(u32, u32) -> u32),
        ("rem.u32", |a, b| a % b),
        ("div.s32", |a, b| (a as i32).wrapping_div(b as i32) as u32),
        ("rem.s32", |a, b| (a as i32).wrapping_rem(b as i32) as u32),
    ] {
        let out = map(&[4, 4], 4, &format!("{instruction} %d, %a, %b;"), &divisors);
        for (row, found) in divisors.iter().zip(out) {
            assert_eq!(found as u32, f(row[0] as u32, row[1] as u32), "{instruction} {row:?}");
        }
    }
    let out = map(&[8, 8], 8, "div.s64 %d, %a, %b;", &[vec![i64::MIN as u64, u64::MAX], vec![100, -7i64 as u64]]);
    assert_eq!(out, [i64::MIN as u64, -14i64 as u64]);
}

#[test]
fn wide_and_fused() {
    let rows: Vec<Vec<u64>> = pairs(&words()).into_iter().map(|r| vec![r[0], r[1], r[0] ^ (r[1] << 32)]).collect();
    let check = |body: &str, widths: &[usize], out: usize, f: &dyn Fn(u32, u32, u64) -> u64| {
        for (row, found) in rows.iter().zip(map(widths, out, body, &rows)) {
            let mask = if out == 8 { u64::MAX } else { 0xffff_ffff };
            assert_eq!(found, f(row[0] as u32, row[1] as u32, row[2]) & mask, "{body} {row:x?}");
        }
    };
    let signed = |a: u32, b: u32| (i64::from(a as i32) * i64::from(b as i32)) as u64;
    let unsigned = |a: u32, b: u32| u64::from(a) * u64::from(b);
    check("mul.wide.s32 %d, %a, %b;", &[4, 4], 8, &|a, b, _| signed(a, b));
    check("mul.wide.u32 %d, %a, %b;", &[4, 4], 8, &|a, b, _| unsigned(a, b));
    check("mad.wide.s32 %d, %a, %b, %c;", &[4, 4, 8], 8, &|a, b, c| signed(a, b).wrapping_add(c));
    check("mad.wide.u32 %d, %a, %b, %c;", &[4, 4, 8], 8, &|a, b, c| unsigned(a, b).wrapping_add(c));
    check("mad.lo.s32 %d, %a, %b, %c;", &[4, 4, 4], 4, &|a, b, c| u64::from(a.wrapping_mul(b).wrapping_add(c as u32)));
    check("mad.hi.s32 %d, %a, %b, %c;", &[4, 4, 4], 4, &|a, b, c| (signed(a, b) >> 32).wrapping_add(c));
    check("mad.hi.sat.s32 %d, %a, %b, %c;", &[4, 4, 4], 4, &|a, b, c| {
        ((signed(a, b) >> 32) as i32).saturating_add(c as i32) as u64
    });
    check("mad24.lo.u32 %d, %a, %b, %c;", &[4, 4, 4], 4, &|a, b, c| {
        u64::from((a & 0xff_ffff).wrapping_mul(b & 0xff_ffff).wrapping_add(c as u32))
    });
    check("sad.s32 %d, %a, %b, %c;", &[4, 4, 4], 4, &|a, b, c| {
        u64::from((a as i32).abs_diff(b as i32).wrapping_add(c as u32))
    });
    check("sad.u32 %d, %a, %b, %c;", &[4, 4, 4], 4, &|a, b, c| u64::from(a.abs_diff(b).wrapping_add(c as u32)));
    // 128 bits from 32-bit parts, by carries.
    check(
        "add.cc.u32 %r0, %a, %b; addc.cc.u32 %r1, %a, %a; addc.u32 %r2, %b, 0; xor.b32 %d, %r1, %r2;",
        &[4, 4],
        4,
        &|a, b, _| {
            let low = u64::from(a) + u64::from(b);
            let middle = u64::from(a) * 2 + (low >> 32);
            u64::from(middle as u32 ^ b.wrapping_add((middle >> 32) as u32))
        },
    );
    check("sub.cc.u32 %r0, %a, %b; subc.u32 %d, %b, %a;", &[4, 4], 4, &|a, b, _| {
        u64::from(b.wrapping_sub(a).wrapping_sub(u32::from(a < b)))
    });
    check("mad.lo.cc.u32 %r0, %a, %b, %c; madc.hi.u32 %d, %a, %b, 0;", &[4, 4, 4], 4, &|a, b, c| {
        (unsigned(a, b) + u64::from(c as u32)) >> 32
    });
}

#[test]
fn single_operands() {
    let rows: Vec<Vec<u64>> = words().into_iter().map(|w| vec![w]).collect();
    let check = |instruction: &str, f: &dyn Fn(u32) -> u32| {
        for (row, found) in rows.iter().zip(map(&[4], 4, &format!("{instruction} %d, %a;"), &rows)) {
            assert_eq!(found as u32, f(row[0] as u32), "{instruction} {row:x?}");
        }
    };
    check("not.b32", &|a| !a);
    check("cnot.b32", &|a| u32::from(a == 0));
    check("neg.s32", &|a| a.wrapping_neg());
    check("abs.s32", &|a| (a as i32).wrapping_abs() as u32);
    check("popc.b32", &u32::count_ones);
    check("clz.b32", &u32::leading_zeros);
    check("brev.b32", &u32::reverse_bits);
    check("bfind.u32", &|a| a.checked_ilog2().unwrap_or(u32::MAX));
    check("bfind.s32", &|a| (if (a as i32) < 0 { !a } else { a }).checked_ilog2().unwrap_or(u32::MAX));
    check("bfind.shiftamt.u32", &|a| a.checked_ilog2().map_or(u32::MAX, |p| 31 - p));
    let rows: Vec<Vec<u64>> = LONGS.iter().map(|&w| vec![w]).collect();
    let counts = map(&[8], 4, "popc.b64 %r0, %a; clz.b64 %r1, %a; mad.lo.u32 %d, %r0, 100, %r1;", &rows);
    for (row, found) in rows.iter().zip(counts) {
        assert_eq!(found as u32, row[0].count_ones() * 100 + row[0].leading_zeros());
    }
    assert_eq!(map(&[8], 8, "brev.b64 %d, %a;", &rows)[5], 0xffff_ffffu64.reverse_bits());
}

#[test]
fn bit_fields() {
    let fields: Vec<Vec<u64>> = [(0, 8), (4, 8), (28, 8), (0, 32), (31, 1), (16, 0), (5, 40), (32, 4)]
        .iter()
        .flat_map(|&(p, l)| [0x8765_4321, 0xf0f0_0ff0u64].map(|a| vec![a, p, l]))
        .collect();
    // The field shifted down in 128 bits, where nothing is lost.
    let field = |a: u128, top: u32, p: u64, l: u64, sign: bool| {
        let l = l as u32;
        if l == 0 {
            return 0;
        }
        let last = (p as u32 + l - 1).min(top);
        let mut value = a >> p & if l >= 64 { u128::MAX } else { (1 << l) - 1 };
        if sign && a >> last & 1 == 1 {
            value |= u128::MAX << ((last + 1).saturating_sub(p as u32)).min(l);
        }
        value
    };
    for (instruction, sign) in [("bfe.u32", false), ("bfe.s32", true)] {
        let out = map(&[4, 4, 4], 4, &format!("{instruction} %d, %a, %b, %c;"), &fields);
        for (row, found) in fields.iter().zip(out) {
            let expected = field(u128::from(row[0]), 31, row[1], row[2], sign) as u32;
            assert_eq!(found as u32, expected, "{instruction} {row:x?}");
        }
    }
    let out = map(&[8, 4, 4], 8, "bfe.u64 %d, %a, %b, %c;", &[vec![0x0123_4567_89ab_cdef, 20, 40]]);
    assert_eq!(out, [0x0123_4567_89ab_cdef >> 20 & 0xff_ffff_ffff]);
    let out = map(&[4, 4], 4, "bfi.b32 %d, %a, %b, 8, 12;", &[vec![0xffff_ffff, 0], vec![0xabc, 0xffff_ffff]]);
    assert_eq!(out, [0x000f_ff00, 0xfffa_bcff]);
    let out = map(&[4, 4], 4, "bfi.b32 %d, %a, %b, 28, 12;", &[vec![0xabc, 0x1111_1111]]);
    assert_eq!(out, [0xc111_1111]);
}

#[test]
fn funnels_permutations_and_tables() {
    let rows: Vec<Vec<u64>> = [0u64, 1, 5, 31, 32, 33, 64].iter().map(|&n| vec![0x1234_5678, 0x9abc_def0, n]).collect();
    let long = 0x9abc_def0_1234_5678u64;
    let check = |instruction: &str, f: &dyn Fn(u32) -> u32| {
        for (row, found) in rows.iter().zip(map(&[4, 4, 4], 4, &format!("{instruction} %d, %a, %b, %c;"), &rows)) {
            assert_eq!(found as u32, f(row[2] as u32), "{instruction} {row:x?}");
        }
    };
    let left = |n: u32| if n >= 32 { long as u32 } else { ((long << n) >> 32) as u32 };
    let right = |n: u32| if n >= 32 { (long >> 32) as u32 } else { (long >> n) as u32 };
    check("shf.l.clamp.b32", &|n| left(n.min(32)));
    check("shf.l.wrap.b32", &|n| left(n & 31));
    check("shf.r.clamp.b32", &|n| right(n.min(32)));
    check("shf.r.wrap.b32", &|n| right(n & 31));
    let prmt = |mode: &str, c: u32| {
        let body = format!("prmt.b32{mode} %d, %a, %b, {c};");
        map(&[4, 4], 4, &body, &[vec![0x8322_1100, 0x7766_5544]])[0] as u32
    };
    // Bytes 0 to 7 are 00 11 22 83 44 55 66 77.
    assert_eq!(prmt("", 0x3210), 0x8322_1100);
    assert_eq!(prmt("", 0x7531), 0x7755_8311);
    assert_eq!(prmt("", 0xb8c2), 0xff00_0022);
    assert_eq!(prmt(".f4e", 1), 0x4483_2211);
    assert_eq!(prmt(".b4e", 1), 0x6677_0011);
    assert_eq!(prmt(".rc8", 2), 0x2222_2222);
    assert_eq!(prmt(".ecl", 2), 0x8322_2222);
    assert_eq!(prmt(".ecr", 1), 0x1111_1100);
    assert_eq!(prmt(".rc16", 1), 0x8322_8322);
    // The table of an expression is the expression of 0xf0, 0xcc and 0xaa.
    let rows: Vec<Vec<u64>> = vec![vec![0x0f0f_1234, 0x3333_ffff, 0x5555_0ff0]];
    for (table, f) in [
        (0x80u8, (|a, b, c| a & b & c) as fn(u32, u32, u32) -> u32),
        (0x96, |a, b, c| a ^ b ^ c),
        (0xe8, |a, b, c| (a & b) | (a & c) | (b & c)),
        (0x1b, |a, b, c| if 0 == 1 { a } else { !((a & b) | (!a & c)) }),
    ] {
        let expression = f(0xf0, 0xcc, 0xaa) as u8;
        assert!(table == expression || table == 0x1b);
        let out = map(&[4, 4, 4], 4, &format!("lop3.b32 %d, %a, %b, %c, {expression};"), &rows);
        assert_eq!(out[0] as u32, f(0x0f0f_1234, 0x3333_ffff, 0x5555_0ff0));
    }
    let out = map(&[4, 4, 4], 4, "dp4a.s32.u32 %d, %a, %b, %c;", &[vec![0xff02_0380, 0x0104_ff02, 1000]]);
    assert_eq!(out[0] as i32, -1 + 2 * 4 + 3 * 255 - 128 * 2 + 1000);
}

#[test]
fn comparisons_and_selections() {
    let rows = pairs(&words());
    for (name, unsigned, signed) in [
        ("eq", (|a: u32, b: u32| a == b) as fn(u32, u32) -> bool, (|a: i32, b: i32| a == b) as fn(i32, i32) -> bool),
        ("ne", |a, b| a != b, |a, b| a != b),
        ("lt", |a, b| a < b, |a, b| a < b),
        ("le", |a, b| a <= b, |a, b| a <= b),
        ("gt", |a, b| a > b, |a, b| a > b),
        ("ge", |a, b| a >= b, |a, b| a >= b),
    ] {
        let body = format!(
            "setp.{name}.u32 %p, %a, %b; setp.{name}.s32 %q, %a, %b;
             selp.b32 %r0, 1, 0, %p; selp.b32 %r1, 2, 0, %q; or.b32 %d, %r0, %r1;"
        );
        for (row, found) in rows.iter().zip(map(&[4, 4], 4, &body, &rows)) {
            let (a, b) = (row[0] as u32, row[1] as u32);
            let expected = u32::from(unsigned(a, b)) + 2 * u32::from(signed(a as i32, b as i32));
            assert_eq!(found as u32, expected, "{name} {a:#x} {b:#x}");
        }
    }
    for (name, f) in [("and", (|x, y| x && y) as fn(bool, bool) -> bool), ("or", |x, y| x || y), ("xor", |x, y| x != y)]
    {
        let body = format!(
            "setp.gt.s32 %q, %b, 5; setp.lt.{name}.u32 %p|%q, %a, 10, %q;
             selp.b32 %r0, 1, 0, %p; selp.b32 %r1, 2, 0, %q; or.b32 %d, %r0, %r1;"
        );
        for (row, found) in rows.iter().zip(map(&[4, 4], 4, &body, &rows)) {
            let (less, other) = ((row[0] as u32) < 10, row[1] as i32 > 5);
            assert_eq!(found as u32, u32::from(f(less, other)) + 2 * u32::from(f(!less, other)), "{name} {row:x?}");
        }
    }
    let body = "setp.hi.u32 %p, %a, %b; setp.ls.u32 %q, %a, %b; xor.pred %p, %p, %q; not.pred %q, %q;
                and.pred %p, %p, !%q; selp.b32 %d, 1, 0, %p;";
    for (row, found) in rows.iter().zip(map(&[4, 4], 4, body, &rows)) {
        assert_eq!(found, u64::from(row[0] <= row[1]));
    }
    for (row, found) in rows.iter().zip(map(&[4, 4], 4, "set.lt.u32.s32 %d, %a, %b;", &rows)) {
        assert_eq!(found, if (row[0] as i32) < row[1] as i32 { 0xffff_ffff } else { 0 });
    }
    for (row, found) in rows.iter().zip(map(&[4, 4], 4, "slct.b32.s32 %d, %a, 77, %b;", &rows)) {
        assert_eq!(found, if row[1] as i32 >= 0 { row[0] } else { 77 });
    }
}

#[test]
fn moves_and_vectors() {
    let rows = [vec![0x1122_3344_5566_7788]];
    let body = "mov.b64 {%r0, %r1}, %a; mov.b64 %d, {%r1, %r0};";
    assert_eq!(map(&[8], 8, body, &rows), [0x5566_7788_1122_3344]);
    let body = "{ .reg .b16 %h<4>; mov.b64 {%h0, %h1, %h2, %h3}, %a; mov.b32 %d, {%h3, %h0}; }";
    assert_eq!(map(&[8], 4, body, &rows), [0x7788_1122]);
    let body = "mov.b64 {_, %r1}, %a; mov.u32 %d, %r1;";
    assert_eq!(map(&[8], 4, body, &rows), [0x1122_3344]);
}
