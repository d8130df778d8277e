//! QR codes: made small, drawn on the terminal, as PNG and as SVG.
//!
//! What is written in capitals takes a third less room in a code, so what may stand in capitals
//! does: bech32 texts, in which case means nothing (BIP 173), and the scheme of a URI.

use png::{BitDepth, ColorType, Encoder};
use qrcode::{Color, EcLevel, QrCode};

use crate::error::CliError;

/// Light modules around a code, without which readers do not find it.
///
/// Source: ISO/IEC 18004, "Quiet zone".
const QUIET: usize = 4;
/// Pixels of one module in a PNG.
const SCALE: usize = 8;
/// Up to this length a code is made to bear some dirt; a longer one is dense enough as it is.
const STURDY_LEN_MAX: usize = 300;
/// Longest text that any code holds, bytes.
const LEN_MAX: usize = 2_953;

/// A QR code.
pub struct Code {
    /// Modules in a row.
    size: usize,
    /// Row by row, true for dark.
    dark: Vec<bool>,
}

/// How the terminal shows a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Black on white by colours of its own, whatever the terminal's are.
    Colours,
    /// Without colours, on a dark terminal: what is drawn is light.
    OnDark,
    /// Without colours, on a light terminal: what is drawn is dark.
    OnLight,
}

impl Code {
    /// Makes the code of `text` as it stands; see [`compact`].
    pub fn of(text: &str) -> Result<Self, CliError> {
        let level = if text.len() > STURDY_LEN_MAX { EcLevel::L } else { EcLevel::M };
        let code = QrCode::with_error_correction_level(text, level).map_err(|error| {
            CliError::Usage(format!(
                "a text of {} bytes makes no QR code: {error}; one holds at most {LEN_MAX}. For a \
                 payment request leave a way out, such as --no-bolt12",
                text.len()
            ))
        })?;
        let dark = code.to_colors().into_iter().map(|colour| colour == Color::Dark).collect();
        Ok(Self { size: code.width(), dark })
    }

    /// Whether a module is dark; those around the code, from -4 on, are light.
    fn is_dark(&self, x: usize, y: usize) -> bool {
        let inside = |at: usize| at.checked_sub(QUIET).filter(|at| *at < self.size);
        match (inside(x), inside(y)) {
            (Some(x), Some(y)) => self.dark[y * self.size + x],
            _ => false,
        }
    }

    /// Modules in a row, with those around.
    fn width(&self) -> usize {
        self.size + 2 * QUIET
    }

    /// Draws it with half blocks, two rows of modules in a line.
    pub fn terminal(&self, look: Look) -> String {
        let mut text = String::new();
        for y in (0..self.width()).step_by(2) {
            if look == Look::Colours {
                // Black on white of the 256 colours, which themes of a terminal leave alone.
                text.push_str("\x1b[38;5;16;48;5;231m");
            }
            for x in 0..self.width() {
                let drawn = |y| self.is_dark(x, y) != (look == Look::OnDark);
                // Below the last row of an odd number there is light as well.
                text.push(match (drawn(y), drawn(y + 1)) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                });
            }
            if look == Look::Colours {
                text.push_str("\x1b[0m");
            }
            text.push('\n');
        }
        text
    }

    /// Draws it as SVG, black on white.
    pub fn svg(&self) -> String {
        use std::fmt::Write as _;
        let width = self.width();
        let mut path = String::new();
        for y in 0..width {
            for x in (0..width).filter(|x| self.is_dark(*x, y)) {
                // Writing to a String cannot fail.
                let _ = write!(path, "M{x},{y}h1v1h-1z");
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {width}\" \
             shape-rendering=\"crispEdges\">\n<rect width=\"{width}\" height=\"{width}\" \
             fill=\"#fff\"/>\n<path d=\"{path}\" fill=\"#000\"/>\n</svg>\n"
        )
    }

    /// Draws it as PNG, one bit for each pixel.
    pub fn png(&self) -> Result<Vec<u8>, CliError> {
        let pixels = self.width() * SCALE;
        let side = u32::try_from(pixels).expect("a code has at most 185 modules in a row");
        let mut rows = Vec::with_capacity(pixels * pixels / 8);
        for y in 0..pixels {
            for byte in 0..pixels / 8 {
                let light = |bit: usize| !self.is_dark((byte * 8 + bit) / SCALE, y / SCALE);
                rows.push((0..8).fold(0_u8, |bits, bit| bits << 1 | u8::from(light(bit))));
            }
        }
        let mut file = Vec::new();
        let failed = |error: png::EncodingError| CliError::Failed(error.to_string());
        let mut encoder = Encoder::new(&mut file, side, side);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(BitDepth::One);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&rows).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(file)
    }
}

/// Writes what may stand in capitals in capitals. What it asks for stays the same.
pub fn compact(text: &str) -> String {
    let text = text.trim();
    if let Some(rest) = text.get(8..).filter(|_| node::requests::Uri::is_one(text)) {
        let (body, query) = rest.split_once('?').map_or((rest, None), |(b, q)| (b, Some(q)));
        let mut compact = format!("BITCOIN:{}", louder(body));
        if let Some(query) = query {
            // What asks for the payment, and nothing that is only shown.
            let louder_of = |key: &str, value: &str| match key.to_ascii_lowercase().as_str() {
                "lightning" | "lno" | "bc" | "tb" | "bcrt" => louder(value),
                _ => value.to_owned(),
            };
            let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
                // Keys stay as they are: readers of BIP 21 know them in lower case only.
                Some((key, value)) => format!("{key}={}", louder_of(key, value)),
                None => parameter.to_owned(),
            });
            compact.push('?');
            compact.push_str(&parameters.collect::<Vec<_>>().join("&"));
        }
        return compact;
    }
    let (scheme, bare) = match text.get(..10) {
        Some(scheme) if scheme.eq_ignore_ascii_case("lightning:") => ("LIGHTNING:", &text[10..]),
        _ => ("", text),
    };
    let loud = louder(bare);
    if !scheme.is_empty() && loud == bare && !is_loud(bare) {
        return text.to_owned();
    }
    format!("{scheme}{loud}")
}

/// A bech32 text in capitals; anything else as it is.
fn louder(text: &str) -> String {
    let starts = ["lnbc", "lntb", "lntbs", "lnbcrt", "lno1", "bc1", "tb1", "bcrt1"];
    let is_bech32 = starts.iter().any(|start| text.starts_with(start))
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if is_bech32 { text.to_ascii_uppercase() } else { text.to_owned() }
}

fn is_loud(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use node::requests::Uri;
    use proptest::prelude::*;

    use super::*;

    const INVOICE: &str = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh";
    const ADDRESS: &str = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq";

    /// What a reader that is not ours sees in a picture of grey values.
    fn seen(width: usize, height: usize, grey: impl Fn(usize, usize) -> u8) -> String {
        let mut picture = rqrr::PreparedImage::prepare_from_greyscale(width, height, grey);
        let grids = picture.detect_grids();
        assert_eq!(grids.len(), 1, "one code is found");
        grids[0].decode().unwrap().1
    }

    /// What it sees on a terminal whose characters are as wide as half of them are high.
    fn seen_on_terminal(text: &str, drawn_is: u8) -> String {
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        let half = |x: usize, y: usize| {
            let drawn = match (lines[y / 2][x], y % 2) {
                ('█', _) | ('▀', 0) | ('▄', 1) => true,
                (' ', _) | ('▀', 1) | ('▄', 0) => false,
                other => panic!("{other:?}"),
            };
            if drawn { drawn_is } else { 255 - drawn_is }
        };
        seen(lines[0].len() * 4, lines.len() * 8, |x, y| half(x / 4, y / 4))
    }

    fn seen_in_png(file: &[u8]) -> String {
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut buffer = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut buffer).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (ColorType::Grayscale, BitDepth::One));
        let light = |x: usize, y: usize| buffer[y * info.line_size + x / 8] >> (7 - x % 8) & 1;
        seen(info.width as usize, info.height as usize, |x, y| light(x, y) * 255)
    }

    #[test]
    fn another_reader_sees_what_was_drawn() {
        let unified =
            format!("bitcoin:{ADDRESS}?amount=0.0025&message=1%20cup&lightning={INVOICE}");
        for text in ["a", ADDRESS, &compact(INVOICE), &unified, &compact(&unified), "₿a@b.c"] {
            let code = Code::of(text).unwrap();
            assert_eq!(seen_in_png(&code.png().unwrap()), text);
            assert_eq!(seen_on_terminal(&code.terminal(Look::OnLight), 0), text);
            assert_eq!(seen_on_terminal(&code.terminal(Look::OnDark), 255), text);
            let colours = code.terminal(Look::Colours);
            let plain = anstream::adapter::strip_str(&colours).to_string();
            assert_eq!(plain, code.terminal(Look::OnLight));
            // Each line begins with colours and ends without: what follows is not painted.
            assert!(
                colours.lines().all(|line| line.starts_with('\x1b') && line.ends_with("\x1b[0m"))
            );
        }
    }

    #[test]
    fn a_vector_picture_has_the_same_modules() {
        let code = Code::of(ADDRESS).unwrap();
        let svg = code.svg();
        let mut dark = vec![vec![255_u8; code.width()]; code.width()];
        for module in svg.split('M').skip(1) {
            let (x, rest) = module.split_once(',').unwrap();
            let (y, _) = rest.split_once('h').unwrap();
            dark[y.parse::<usize>().unwrap()][x.parse::<usize>().unwrap()] = 0;
        }
        let pixels = code.width() * 4;
        assert_eq!(seen(pixels, pixels, |x, y| dark[y / 4][x / 4]), ADDRESS);
        assert!(svg.contains(&format!("viewBox=\"0 0 {0} {0}\"", code.width())));
    }

    #[test]
    fn capitals_make_codes_smaller_and_change_nothing_else() {
        assert_eq!(compact(INVOICE), INVOICE.to_uppercase());
        let lightning = format!("lightning:{INVOICE}");
        assert_eq!(compact(&lightning), lightning.to_uppercase());
        let size = |text: &str| Code::of(text).unwrap().size;
        assert!(size(&compact(INVOICE)) < size(INVOICE));
        // In these, case means something.
        for text in ["175tWpb8K1S7NmH4Zx6rewF9WQrcZv245W", "Hello", "lnbc1Mixed", "lightning:a@b"] {
            assert_eq!(compact(text), text);
        }
        let text = format!(
            "bitcoin:{ADDRESS}?amount=0.1&message=lower%2fcase&label=lnbc1&lightning={INVOICE}"
        );
        let small = compact(&text);
        assert!(
            small.starts_with("BITCOIN:BC1Q") && small.contains("message=lower%2fcase&label=lnbc1")
        );
        assert!(small.contains("lightning=LNBC2500U") && size(&small) < size(&text));
    }

    #[test]
    fn what_does_not_fit_says_how_much_does() {
        let error = Code::of(&"a".repeat(LEN_MAX + 1)).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(format!("{error:?}").contains("2953"), "{error:?}");
        assert!(Code::of(&"a".repeat(LEN_MAX)).is_ok());
    }

    proptest! {
        #[test]
        fn a_compact_uri_reads_the_same_but_for_case(
            body in "(bc1q[a-z0-9]{5,20}|[13][a-zA-Z0-9]{5,20}|)",
            message in "[a-zA-Z0-9 &=%?₿]{0,20}",
            invoice in "lnbc[a-z0-9]{5,30}",
        ) {
            let key = node::requests::UriKey::Body;
            let mut uri = Uri { message: Some(message), ..Uri::default() };
            if !body.is_empty() {
                uri.ways.push(node::requests::UriWay { key, text: body.clone() });
            }
            let key = node::requests::UriKey::Lightning;
            uri.ways.push(node::requests::UriWay { key, text: invoice });
            let read = Uri::read(&compact(&uri.to_string())).unwrap();
            prop_assert_eq!(read.message, uri.message);
            for (read, was) in read.ways.iter().zip(&uri.ways) {
                prop_assert!(read.text == was.text || read.text == was.text.to_uppercase());
                prop_assert!(!was.text.starts_with(['1', '3']) || read.text == was.text);
            }
        }
    }
}
