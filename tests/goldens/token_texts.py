"""The texts of the tokenizer goldens: 200 of them, by kind. No model knows them; `tokens.py` encodes them."""

CODE = [
    "def f(x):\n    return x ** 2 + 1\n", "for (int i = 0; i < 10; ++i) { sum += a[i]; }", "let x: Vec<u32> = vec![1, 2, 3];",
    "SELECT id, name FROM users WHERE age >= 18 AND city != 'Oslo';", "<div class=\"row\">\n\t<p>Hi &amp; bye</p>\n</div>",
    "#include <stdio.h>\nint main(void) {\n\tprintf(\"%d\\n\", 42);\n\treturn 0;\n}\n", "x = {'a': [1, 2.5, None], \"b\": True}",
    "git commit -m \"fix: don't crash\" && git push origin main", "a->b.c()[0]::<T>()?.d", "if (a&&b||!c) return ~d^e|f&g;",
    "import numpy as np\nX = np.zeros((3, 4))[:, ::-1]", "\\begin{equation} E = mc^2 \\end{equation}",
    "https://example.org/a/b?c=d&e=%20f#g", "s/[^a-z]+/_/g", "0x7fFF_u32 << 3", "public static void main(String[] args)",
    "```python\nprint('hello')\n```", "{\"key\": \"value\", \"n\": [1, 2, {\"m\": null}]}", "C:\\Users\\me\\file.txt",
    "user@example.com", "fn main() {\n        deep();\n            deeper();\n}", "<?php echo $x; ?>", "$HOME/.config/${USER}",
    "// TODO(me): remove\n/* block */", "lambda x, *args, **kwargs: (yield)", "camelCaseName snake_case_name SCREAMING_CASE kebab-case",
]
DIGITS = [
    "0", "7", "42", "1234567890", "3.14159", "1,000,000", "-17", "+5 %", "12:34:56", "2024-11-23", "J18.9 E11.65 I10", "007", "1e-9",
    "100°C", "₂ ² ³ ½ ¼ ⅓", "٠١٢٣٤٥٦٧٨٩", "Ⅳ Ⅸ ⅻ", "１２３", "1234 5678 9012 3456", "v1.2.3-rc.4", "a1b2c3", "1st 2nd 3rd 4th", "99%",
    "192.168.0.1", "x2 + y3 = z4", "१२३ ๑๒๓", "12345678901234567890123456789012345678901234567890",
]
EMOJI = [
    "😀", "👍🏽", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "I ❤️ Rust 🦀!", "🚀🚀🚀", "a😀b", "☺", "✅ done ❌ not", "🏳️‍🌈", "👨🏿‍⚕️", "🫠🫡", "1️⃣2️⃣", "⌚️ ⏰",
]
CJK = [
    "你好,世界", "我喜欢吃苹果。", "東京は日本の首都です。", "ひらがなとカタカナ", "안녕하세요 세계", "龍龘靐齉", "中文English混合123", "「引用」、『本』",
    "ｱｲｳｴｵ", "〇一二三", "한국어 띄어쓰기 테스트", "𠮷野家", "今天是2024年11月23日", "ー〜…",
]
SPACE = [
    "", " ", "  ", "   ", "    ", "        ", "                ", "\t", "\t\t", "\t\t\t\t", "\n", "\n\n", "\n\n\n", "\n\n\n\n\n\n\n", "\r\n",
    "\r\n\r\n", "\r", " \n", "\n ", " \n \n ", "a ", " a", "  a", "   a  b   c", "a\tb", "a \t b", "a\n\nb", "a\n \nb", "  leading", "trailing  ",
    "\u00a0nbsp\u00a0", "\u2003em\u2003", "\u3000全角\u3000", "\u200bzero\u200bwidth", "\ufeffbom", "a" + " " * 33 + "b", "\n" * 33, "\t\n\t\n",
    "x\u2028y\u2029z", "line one\n    indented\n\ttabbed\n", " " * 100, "a\x0bb\x0cc",
]
SPECIAL = [
    "<|im_start|>user\nHi<|im_end|>\n", "<|im_start|>", "text<|im_end|>text", "<|endoftext|>", "a <|endoftext|> b", "<s>Hello</s>", "<bos>Hello<eos>",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>",
    "<|eot_id|><|eot_id|>", "<pad><unk><mask>", "<unused7>", "[INST] Hi [/INST]", "<|im_start|", "< |im_start|>", "<table><tr><td>1</td></tr></table>",
    "<0x41>", "▁", "a▁b", "▁▁ x", "Ġ Ċ", "<|fim_prefix|>x<|fim_suffix|>", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>", " <|im_end|> ",
]
ACCENTS = [
    "Größe: 1,78 m", "naïve café déjà-vu", "Ångström øre Ægir", "cafe\u0301 de\u0301ja\u0300", "ñandú señor ¿qué? ¡sí!", "Žluťoučký kůň", "ĞğİıŞş",
    "ﬁne oﬃce", "ß ẞ", "ạ̈ ȫ", "Việt Nam", "Łódź", "ΑΒΓ αβγ ς", "Привет, мир", "שלום עולם", "مرحبا بالعالم", "हिन्दी में", "ไทยแลนด์", "ქართული", "አማርኛ",
    "தமிழ்", "Ελληνικά και English", "русский и 中文 und Deutsch", "fi\u200cnger", "A\u030angstro\u0308m",
]
PUNCTUATION = [
    "don't can't I'm we've they'll he'd it's", "DON'T CAN'T I'M WE'VE", "“curly” ‘quotes’ — dash – en… dots", "!!!???", "...", "-----", "=====", "(((a)))", "a--b",
    "*bold* _it_ `code` ~~no~~", "$5 €6 £7 ¥8 ₹9", "© ® ™ § ¶ † ‡", "← ↑ → ↓ ⇒ ∀x∈ℝ: x² ≥ 0", "a/b\\c|d", "#hashtag @mention", "'s 't 're", "''''", "x'y'z",
]
LONG = [
    "The patient was admitted with shortness of breath, a productive cough and a fever of 39.2 °C. Blood pressure 135/85 mmHg, pulse 104. " * 6,
    "\n".join(f"{i:>3}. item number {i * 37 % 101}: {'x' * (i % 7)}" for i in range(40)), "abcdefghijklmnopqrstuvwxyz" * 12, "ab " * 200,
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis floccinaucinihilipilification",
    "Es war einmal mitten im Winter, und die Schneeflocken fielen wie Federn vom Himmel herab. " * 4, "人之初，性本善。性相近，习相远。" * 10, "0123456789" * 20,
    "if x:\n" + "".join("    " * d + f"level_{d} = {d}\n" for d in range(1, 12)), "😀" * 30,
]
TEXTS = CODE + DIGITS + EMOJI + CJK + SPACE + SPECIAL + ACCENTS + PUNCTUATION + LONG
assert len(TEXTS) == len(set(TEXTS)) == 200, (len(TEXTS), len(set(TEXTS)))
