//! Golden data: hex, wrapped, under `golden/v1`. Nothing rewrites them; a test that finds a difference prints what
//! would be written now (`docs/how-to/add-a-command.md` says when that may take the old one's place).

/// Bytes on one line.
const LINE: usize = 48;

pub fn bytes(golden: &str) -> Vec<u8> {
    let digits: Vec<u8> = golden.bytes().filter(u8::is_ascii_hexdigit).collect();
    hex::decode(digits).unwrap()
}

/// What is written now is what was written then, each under its file's name.
pub fn assert_written(files: &[(&str, &str, Vec<u8>)]) {
    let differs = files
        .iter()
        .filter(|(_, golden, now)| bytes(golden) != *now);
    let texts: Vec<String> = differs
        .map(|(file, _, now)| {
            let lines: Vec<String> = now.chunks(LINE).map(hex::encode).collect();
            let text = lines.join("\n");
            format!("golden/v1/{file} differs; today it would be:\n{text}\n<<end\n")
        })
        .collect();
    assert!(texts.is_empty(), "{}", texts.concat());
}
