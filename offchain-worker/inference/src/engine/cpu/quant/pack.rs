//! From a GGUF file's blocks to the order in which kernels read.
//!
//! A group is 16 rows: first the codes of its blocks, then the scales. In a block's codes, byte `4 r + i` of the 64 bytes `j`
//! belongs to row `r` and column `4 j + i`:
//!
//! - 8 bits: 8 times 64 bytes.
//! - 4 bits: 4 times 64 bytes; the low halves are those of `2 j`, the high ones of `2 j + 1`.
//! - 5 bits: as 4, then 8 times 64 bits, the fifth of each code.
//! - 6 bits: as 4, then 2 times 64 bytes with four times two bits, the lowest for the first of four `j`.

use super::{
    super::{
        memory::{Arena, Memory},
        pool::{Parts, Pool},
    },
    Format, Scales, BLOCK, ROWS,
};
use half::f16;

/// A matrix laid out for the kernels.
pub(crate) struct QuantMatrix {
    format: Format,
    rows: usize,
    columns: usize,
    memory: Memory,
}

/// A row's values in one of the format's own blocks ([`Format::columns`] of them).
struct Block {
    codes: [u8; 8 * BLOCK],
    /// What codes are multiplied by, and what is added or subtracted.
    scales: [f16; 2],
    /// The integer factors: of each block, or half of a block; then of what is subtracted.
    factors: [[u8; 16]; 2],
}

impl QuantMatrix {
    /// Lays out `data`, the tensor as it is in a GGUF file.
    ///
    /// # Errors
    /// When `data` is not as long as the shape and the format say, or there is no memory.
    pub(crate) fn pack(
        pool: &Pool,
        arena: &Arena,
        format: Format,
        rows: usize,
        columns: usize,
        data: &[u8],
    ) -> candle_core::Result<Self> {
        let row_bytes = columns / format.columns() * format.file_bytes();
        if columns == 0 || !columns.is_multiple_of(format.columns()) || data.len() != rows * row_bytes {
            candle_core::bail!("{} bytes are no matrix of {rows} rows of {columns} in {format:?}", data.len())
        }
        let mut this = Self { format, rows, columns, memory: arena.zeroed(0)? };
        let group_bytes = this.group_bytes();
        let mut memory = arena.zeroed(this.groups() * group_bytes)?;
        let groups = Parts::new(&mut memory);
        pool.run(this.groups(), &|group| {
            // SAFETY: groups do not overlap, and each is one piece of work.
            let to = unsafe { groups.slice(group * group_bytes, group_bytes) };
            let (codes, scales) = to.split_at_mut(this.code_bytes());
            for lane in 0..ROWS.min(rows - group * ROWS) {
                let row = &data[(group * ROWS + lane) * row_bytes..][..row_bytes];
                for (index, from) in row.chunks_exact(format.file_bytes()).enumerate() {
                    let block = Block::read(format, from);
                    block.write(format, lane, index, codes, scales);
                }
            }
        });
        this.memory = memory;
        Ok(this)
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// How many times 16 rows, the last perhaps in part.
    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Bytes that a product reads.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.len()
    }

    fn code_bytes(&self) -> usize {
        self.columns / BLOCK * self.format.code_bytes()
    }

    fn group_bytes(&self) -> usize {
        let scales = self.columns / self.format.columns() * self.format.scale_bytes();
        // Each group's codes begin at a cache line.
        (self.code_bytes() + scales).next_multiple_of(64)
    }

    /// The codes and the scales of 16 rows.
    pub(crate) fn group(&self, group: usize) -> (&[u8], &[u8]) {
        let scales = self.columns / self.format.columns() * self.format.scale_bytes();
        let group = &self.memory[group * self.group_bytes()..][..self.group_bytes()];
        let (codes, rest) = group.split_at(self.code_bytes());
        (codes, &rest[..scales])
    }

    /// One row's values: the matrix as a table.
    ///
    /// # Panics
    /// When there is no such row, or `out` has not as many values as there are columns.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns, "no such row, or another length");
        let (codes, scales) = self.group(row / ROWS);
        for (index, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let block = Lane::read(self.format, row % ROWS, index, codes, scales);
            for (column, out) in out.iter_mut().enumerate() {
                let half = column / (BLOCK / 2);
                *out = block.scales[half] * f32::from(block.codes[column])
                    + block.scales[half] * -(self.format.offset() as f32)
                    + block.minimum;
            }
        }
    }
}

impl Format {
    /// Bytes of [`Format::columns`] columns of one row in a GGUF file.
    pub(super) const fn file_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }
}

fn f16_at(bytes: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]])
}

impl Block {
    /// Reads a block as ggml writes it.
    fn read(format: Format, from: &[u8]) -> Self {
        let mut this = Self { codes: [0; 8 * BLOCK], scales: [f16::ZERO; 2], factors: [[0; 16]; 2] };
        match format {
            Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 => {
                this.scales[0] = f16_at(from, 0);
                let mut rest = &from[2..];
                if format.scales() == Scales::PlainMin {
                    this.scales[1] = f16_at(rest, 0);
                    rest = &rest[2..];
                }
                let mut fifth = 0;
                if format.bits() == 5 {
                    fifth = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
                    rest = &rest[4..];
                }
                for (i, byte) in rest.iter().enumerate() {
                    this.codes[i] = (byte & 15) | ((fifth >> i & 1) << 4) as u8;
                    this.codes[i + 16] = (byte >> 4) | ((fifth >> (i + 16) & 1) << 4) as u8;
                }
            }
            Format::Q8_0 => {
                this.scales[0] = f16_at(from, 0);
                for (code, byte) in this.codes.iter_mut().zip(&from[2..]) {
                    // Signed, plus 128.
                    *code = byte ^ 0x80;
                }
            }
            Format::Q4_K | Format::Q5_K => {
                this.scales = [f16_at(from, 0), f16_at(from, 2)];
                let packed = &from[4..16];
                for j in 0..8 {
                    let (scale, minimum) = if j < 4 {
                        (packed[j] & 63, packed[j + 4] & 63)
                    } else {
                        (
                            (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4,
                            (packed[j + 4] >> 4) | (packed[j] >> 6) << 4,
                        )
                    };
                    this.factors[0][j] = scale;
                    this.factors[1][j] = minimum;
                }
                let (fifth, low) = match format {
                    Format::Q5_K => (Some(&from[16..48]), &from[48..]),
                    _ => (None, &from[16..]),
                };
                for (j, codes) in this.codes.chunks_exact_mut(BLOCK).enumerate() {
                    for (i, code) in codes.iter_mut().enumerate() {
                        let byte = low[j / 2 * 32 + i];
                        *code = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
                        if let Some(fifth) = fifth {
                            *code |= (fifth[i] >> j & 1) << 4;
                        }
                    }
                }
            }
            Format::Q6_K => {
                let (low, rest) = from.split_at(128);
                let (high, rest) = rest.split_at(64);
                this.scales[0] = f16_at(rest, 16);
                this.factors[0].copy_from_slice(&rest[..16]);
                for (j, codes) in this.codes.chunks_exact_mut(BLOCK).enumerate() {
                    let (part, quarter) = (j / 4, j % 4);
                    for (i, code) in codes.iter_mut().enumerate() {
                        let byte = low[part * 64 + quarter % 2 * 32 + i];
                        let four = if quarter < 2 { byte & 15 } else { byte >> 4 };
                        let two = high[part * 32 + i] >> (2 * quarter) & 3;
                        *code = four | two << 4;
                    }
                }
            }
        }
        this
    }

    /// Writes it to a lane of a group.
    fn write(&self, format: Format, lane: usize, index: usize, codes: &mut [u8], scales: &mut [u8]) {
        let blocks = format.columns() / BLOCK;
        for (b, from) in self.codes.chunks_exact(BLOCK).take(blocks).enumerate() {
            let to = &mut codes[(index * blocks + b) * format.code_bytes()..][..format.code_bytes()];
            // Four codes at a time.
            let fours =
                from.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            if format.bits() == 8 {
                for (j, four) in fours.enumerate() {
                    to[64 * j + 4 * lane..][..4].copy_from_slice(&four.to_le_bytes());
                }
                continue;
            }
            let mut lows = 0;
            let mut highs = 0;
            for (j, four) in fours.enumerate() {
                let (low, high) = (four & 0x0f0f_0f0f, four >> 4 & 0x0303_0303);
                lows |= low << (4 * (j % 2));
                if j % 2 == 1 {
                    to[64 * (j / 2) + 4 * lane..][..4].copy_from_slice(&lows.to_le_bytes());
                    lows = 0;
                }
                match format.bits() {
                    // The lowest bits of the four bytes, side by side.
                    5 => {
                        let bits = (high.wrapping_mul(0x0102_0408) >> 24 & 15) as u8;
                        to[256 + 8 * j + lane / 2] |= bits << (4 * (lane % 2));
                    }
                    6 => {
                        highs |= high << (2 * (j % 4));
                        if j % 4 == 3 {
                            to[256 + 64 * (j / 4) + 4 * lane..][..4].copy_from_slice(&highs.to_le_bytes());
                            highs = 0;
                        }
                    }
                    _ => {}
                }
            }
        }
        let to = &mut scales[index * format.scale_bytes()..][..format.scale_bytes()];
        let mut put = |at: usize, scale: f16| to[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        put(2 * lane, self.scales[0]);
        match format.scales() {
            Scales::Plain => {}
            Scales::PlainMin => put(2 * ROWS + 2 * lane, self.scales[1]),
            Scales::SuperMin => {
                put(2 * ROWS + 2 * lane, self.scales[1]);
                for b in 0..8 {
                    to[(4 + 2 * b) * ROWS + lane] = self.factors[0][b];
                    to[(5 + 2 * b) * ROWS + lane] = self.factors[1][b];
                }
            }
            Scales::SuperHalves => {
                for half in 0..16 {
                    to[(2 + half) * ROWS + lane] = self.factors[0][half];
                }
            }
        }
    }
}

/// One row of a block, read back.
pub(super) struct Lane {
    /// Codes, with their offset.
    pub(super) codes: [u8; BLOCK],
    /// What the codes of each half are multiplied by.
    pub(super) scales: [f32; 2],
    /// What is added to each value.
    pub(super) minimum: f32,
}

impl Lane {
    pub(super) fn read(format: Format, lane: usize, index: usize, codes: &[u8], scales: &[u8]) -> Self {
        let from = &codes[index * format.code_bytes()..][..format.code_bytes()];
        let code = |column: usize| {
            let (j, byte) = (column / 4, 4 * lane + column % 4);
            if format.bits() == 8 {
                return from[64 * j + byte];
            }
            let low = from[64 * (j / 2) + byte] >> (4 * (j % 2)) & 15;
            match format.bits() {
                5 => low | (from[256 + 8 * j + byte / 8] >> (byte % 8) & 1) << 4,
                6 => low | (from[256 + 64 * (j / 4) + byte] >> (2 * (j % 4)) & 3) << 4,
                _ => low,
            }
        };
        let codes = std::array::from_fn(code);
        let blocks = format.columns() / BLOCK;
        let (b, from) = (index % blocks, &scales[index / blocks * format.scale_bytes()..]);
        let scale = f16_at(from, 2 * lane).to_f32();
        let second = || f16_at(from, 2 * ROWS + 2 * lane).to_f32();
        let (scales, minimum) = match format.scales() {
            Scales::Plain => ([scale; 2], 0.0),
            Scales::PlainMin => ([scale; 2], second()),
            Scales::SuperMin => (
                [scale * f32::from(from[(4 + 2 * b) * ROWS + lane]); 2],
                -second() * f32::from(from[(5 + 2 * b) * ROWS + lane]),
            ),
            Scales::SuperHalves => {
                let factor = |half: usize| f32::from(from[(2 + 2 * b + half) * ROWS + lane] as i8);
                ([scale * factor(0), scale * factor(1)], 0.0)
            }
        };
        Self { codes, scales, minimum }
    }
}
