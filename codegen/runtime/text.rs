//! Builds error sentences in a fixed buffer, without `core::fmt` (whose machinery refers to panics).

use core::ffi::c_char;

/// Bytes of an error text, with its terminating zero.
pub const TEXT_BYTES: usize = 1024;

/// A zero-terminated sentence under construction; what does not fit is cut off.
pub struct Text<'a> {
    buffer: &'a mut [u8; TEXT_BYTES],
    used: usize,
}

impl<'a> Text<'a> {
    pub fn new(buffer: &'a mut [u8; TEXT_BYTES]) -> Self {
        buffer[0] = 0;
        Text { buffer, used: 0 }
    }

    #[inline(never)]
    pub fn byte(&mut self, byte: u8) -> &mut Self {
        if self.used + 1 < TEXT_BYTES {
            if let Some(slot) = self.buffer.get_mut(self.used) {
                *slot = byte;
            }
            self.used += 1;
            if let Some(slot) = self.buffer.get_mut(self.used) {
                *slot = 0;
            }
        }
        self
    }

    #[inline(never)]
    pub fn str(&mut self, text: &str) -> &mut Self {
        for byte in text.bytes() {
            self.byte(byte);
        }
        self
    }

    #[inline(never)]
    pub fn u64(&mut self, mut value: u64) -> &mut Self {
        let mut digits = [0u8; 20];
        let mut count = 0usize;
        for slot in digits.iter_mut().rev() {
            *slot = b'0' + (value % 10) as u8;
            value /= 10;
            count += 1;
            if value == 0 {
                break;
            }
        }
        for &digit in digits.iter().skip(20usize.saturating_sub(count)) {
            self.byte(digit);
        }
        self
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        if value < 0 {
            self.byte(b'-');
        }
        self.u64(value.unsigned_abs())
    }

    /// # Safety
    /// `text` is null or a zero-terminated string.
    pub unsafe fn c_str(&mut self, mut text: *const c_char) -> &mut Self {
        if text.is_null() {
            return self;
        }
        loop {
            // SAFETY: the caller promised a terminating zero, which is not passed.
            let byte = unsafe { *text } as u8;
            if byte == 0 {
                return self;
            }
            self.byte(byte);
            // SAFETY: the byte was not the last one.
            text = unsafe { text.add(1) };
        }
    }

    /// Dimensions as `[1,3,224]`.
    ///
    /// # Safety
    /// `dims` points to `rank` numbers, or `rank` is 0.
    pub unsafe fn dims(&mut self, dims: *const i64, rank: u32) -> &mut Self {
        self.byte(b'[');
        for axis in 0..rank as usize {
            if axis > 0 {
                self.byte(b',');
            }
            // SAFETY: `axis < rank`, as the caller promised.
            self.i64(unsafe { *dims.add(axis) });
        }
        self.byte(b']')
    }
}
