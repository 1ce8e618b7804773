//! Writes small GGUF files for tests, sound ones and, through the raw fields, unsound ones.

/// A metadata value to write.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "GGUF's types")]
pub enum Meta {
    U16(u16),
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    /// Type number and bytes as they are.
    Raw(u32, Vec<u8>),
}

impl From<u32> for Meta {
    fn from(v: u32) -> Self {
        Self::U32(v)
    }
}

impl From<f32> for Meta {
    fn from(v: f32) -> Self {
        Self::F32(v)
    }
}

impl From<&str> for Meta {
    fn from(v: &str) -> Self {
        Self::Str(v.to_owned())
    }
}

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// GGUF name.
    pub name: String,
    /// Row-major shape; written in reverse, as the format wants it.
    pub shape: Vec<u64>,
    /// ggml type number.
    pub kind: u32,
    /// Blocks.
    pub bytes: Vec<u8>,
    /// Where the header says it lies, if not where it does.
    pub offset: Option<u64>,
}

/// A GGUF file in the making. All header fields can be made to lie.
#[derive(Debug, Clone)]
pub struct GgufWriter {
    /// 3, unless the test is about it.
    pub version: u32,
    /// In the order written.
    pub metadata: Vec<(String, Meta)>,
    /// In the order written.
    pub tensors: Vec<Tensor>,
    /// Number of tensors the header claims, if not the true one.
    pub claimed_tensors: Option<u64>,
    /// Number of metadata pairs the header claims, if not the true one.
    pub claimed_metadata: Option<u64>,
    /// Tensors lie at multiples of this.
    pub alignment: usize,
}

impl Default for GgufWriter {
    fn default() -> Self {
        Self {
            version: 3,
            metadata: Vec::new(),
            tensors: Vec::new(),
            claimed_tensors: None,
            claimed_metadata: None,
            alignment: 32,
        }
    }
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

fn array<T>(out: &mut Vec<u8>, kind: u32, items: &[T], mut one: impl FnMut(&mut Vec<u8>, &T)) {
    out.extend(9u32.to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend((items.len() as u64).to_le_bytes());
    for item in items {
        one(out, item);
    }
}

fn value(out: &mut Vec<u8>, meta: &Meta) {
    let mut tagged = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match meta {
        Meta::U16(v) => tagged(2, &v.to_le_bytes()),
        Meta::U32(v) => tagged(4, &v.to_le_bytes()),
        Meta::I32(v) => tagged(5, &v.to_le_bytes()),
        Meta::F32(v) => tagged(6, &v.to_le_bytes()),
        Meta::Bool(v) => tagged(7, &[u8::from(*v)]),
        Meta::U64(v) => tagged(10, &v.to_le_bytes()),
        Meta::Raw(kind, bytes) => tagged(*kind, bytes),
        Meta::Str(s) => {
            tagged(8, &[]);
            text(out, s);
        }
        Meta::Strs(items) => array(out, 8, items, |out, s| text(out, s)),
        Meta::F32s(items) => array(out, 6, items, |out, v| out.extend(v.to_le_bytes())),
        Meta::I32s(items) => array(out, 5, items, |out, v| out.extend(v.to_le_bytes())),
    }
}

impl GgufWriter {
    /// Adds a metadata pair.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Meta>) -> Self {
        self.metadata.push((key.to_owned(), value.into()));
        self
    }

    /// Adds a tensor of ggml type `kind`.
    pub fn tensor(&mut self, name: &str, shape: &[u64], kind: u32, bytes: Vec<u8>) {
        self.tensors.push(Tensor { name: name.to_owned(), shape: shape.to_vec(), kind, bytes, offset: None });
    }

    /// Adds an F32 tensor.
    pub fn tensor_f32(&mut self, name: &str, shape: &[u64], values: &[f32]) {
        self.tensor(name, shape, 0, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.claimed_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.claimed_metadata.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        for (key, meta) in &self.metadata {
            text(&mut out, key);
            value(&mut out, meta);
        }
        let mut at = 0;
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for dim in tensor.shape.iter().rev() {
                out.extend(dim.to_le_bytes());
            }
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(at as u64).to_le_bytes());
            at = (at + tensor.bytes.len()).next_multiple_of(self.alignment);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.bytes);
        }
        out
    }
}
