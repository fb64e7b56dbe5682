"""The texts that tokenizers are compared on: (name, text) pairs, each there for a reason."""

import random

PROSE = (
    "The quick brown fox jumps over the lazy dog. It's 3.14159 o'clock, isn't it? They'll've been; we're, I'd, I'm, "
    "you've — “quoted”, ‘single’… and (parenthesised) text; semi-colons: colons! THE END'S NEAR, I'LL SAY. "
)

CODE = '''#include <vector>
int main(int argc, char** argv) {
\tstd::vector<int> v = {1, 22, 333, 4444, 0x1F, 1e-9};
    for (auto& x : v) { x <<= 2; if (x != 0 && x >= 10) x->y = *p; }  // comment
        return v.size() == 0 ? -1 : 0;\r\n}

def f(x: int) -> str:
    """Docstring."""
    return f"{x!r:>10}" + '\\n\\t' if x else None
<div class="a b"><h1>Title</h1><br/></div><table><tr><td>1</td></tr></table>
SELECT * FROM t WHERE a <> 'b' -- x
'''


def _scripts():
    yield "greek", "Ο γρήγορος καφές αλεπού πηδάει πάνω από το τεμπέλικο σκυλί."
    yield "russian", "Съешь же ещё этих мягких французских булок, да выпей чаю."
    yield "chinese", "我能吞下玻璃而不伤身体。你好，世界！今天天气很好。"
    yield "japanese", "私はガラスを食べられます。それは私を傷つけません。カタカナ、ひらがな。"
    yield "korean", "나는 유리를 먹을 수 있어요. 그래도 아프지 않아요."
    yield "arabic", "أنا قادر على أكل الزجاج و هذا لا يؤلمني. ١٢٣٤٥ مَرْحَبًا"
    yield "hebrew", "אני יכול לאכול זכוכית וזה לא מזיק לי. שָׁלוֹם"
    yield "devanagari", "मैं काँच खा सकता हूँ और मुझे उससे कोई चोट नहीं पहुंचती. १२३"
    yield "thai", "ฉันกินกระจกได้ แต่มันไม่ทำให้ฉันเจ็บ ๑๒๓"
    yield "tamil", "நான் கண்ணாடி சாப்பிடுவேன், அதனால் எனக்கு ஒரு கேடும் வராது."
    yield "georgian", "მინას ვჭამ და არა მტკივა."
    yield "ethiopic", "መስተዋት መብላት እችላለሁ።"
    yield "gothic", "𐌼𐌰𐌲 𐌲𐌻𐌴𐍃 𐌹̈𐍄𐌰𐌽, 𐌽𐌹 𐌼𐌹𐍃 𐍅𐌿 𐌽𐌳𐌰𐌽 𐌱𐍂𐌹𐌲𐌲𐌹𐌸."
    yield "vietnamese", "Tôi có thể ăn thủy tinh mà không hại gì."
    yield "mixed", "Hello 世界! Привет, мир 123 ١٢٣ — naïve café Ⅷ ½ ² ㊙ ﬁ"


def _emoji():
    yield "emoji", "😀😃😄 👍🏽 ❤️ ☺ 🇩🇪🇫🇷 1️⃣ #️⃣"
    yield "emoji zwj", "👩‍👩‍👧‍👦 👨🏿‍🚀 🏳️‍🌈 🧑‍💻 family"
    yield "combining", "e\u0301 a\u0300\u0301\u0302 Z\u0351\u036b\u0343\u036a\u0302 \u0301alone n\u0303"
    yield "invisible", "a\u200bb\u200cc\u200dd\u2060e\ufeff f\u00adg\u202eh\u202c"
    yield "unassigned and private", "a\u0378b \ue000\uf8ff x\U000f0000 \U0010ffff \ufffe\uffff \U0001fae8"


def _spaces():
    for count in (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65, 100):
        yield f"{count} spaces", " " * count
        yield f"{count} spaces between", "a" + " " * count + "b"
    for count in (1, 2, 3, 4, 10, 30, 31, 32, 33, 70):
        yield f"{count} newlines", "\n" * count
        yield f"{count} newlines between", "a" + "\n" * count + "b"
        yield f"{count} tabs", "x" + "\t" * count + "y"
    yield "crlf", "a\r\nb\r\n\r\nc\rd\n\re"
    yield "mixed spaces", " \t \n  \n\t\t \r\n   x \n y\n \n  z  "
    yield "leading and trailing", "  hello  "
    yield "leading newline", "\n hello\n"
    yield "unicode spaces", "a\u00a0b\u2003c\u3000d\u1680e\u2028f\u2029g\u202fh\u205fi\u0085j\u180ek\u200bl"
    yield "unicode space runs", "a\u00a0\u00a0 b\u3000\u3000c \u2003 d"
    yield "spaces before digits", "a  5   66    777 8 9  "
    yield "space mark", "a\u2581b \u2581\u2581 c"


def _numbers():
    yield "digits", "0 1 12 123 1234 12345 123456 1234567890 3.14 1,000,000 -5 +7 0x1f 1e10 2024-01-02T03:04:05Z"
    yield "other digits", "٠١٢ ०१२ ０１２ ¹²³ ₁₂₃ ⅐⅑ ⅠⅡⅢ ①② 𝟎𝟏 Ⅿ 〇一二三"
    yield "digits and letters", "a1b22c333d4444 v1.2.3-rc4 R2D2 C3PO 4ever"


def _special():
    yield "chatml", "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    yield "gemma turns", "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    yield "adjacent", "<|im_end|><|im_end|><|endoftext|><eos><eos><pad>"
    yield "broken", "<|im_start| ><|im_en|d|> <|im_start|>> <<|im_end|>> < |im_end|> <unused99><unused6241><unused6242>"
    yield "tags", "<h1>a</h1> <table><td>b</td></table> <i>strike</i> <b>x</b> [multimodal] <mask> <unk> <s>"
    yield "end of strikethrough", "a <s>b</s> c"
    yield "spaces around", "a <|im_end|> b  <eos>  c\n<|im_end|>\nd"
    yield "repo", "<repo_name>x<reponame>y<file_sep>z<jupyter_code>\n<empty_output>"
    yield "byte texts", "<0x0A> <0xFF> <0xe2> <0x00>"


def _contractions():
    yield "contractions", "I'm you're he's we've they'd I'll can't 'S 'T 'RE 'Ve 'M 'lL 'D 'x '' 's's 'sss don''t"
    yield "apostrophes", "o’clock ‘tis rock 'n' roll d'Artagnan l'été ''' '\u017f"


def _punctuation():
    yield "ascii punctuation", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ !! ?? ... --- === ### $$$ %%% &&& *** ((( )))"
    yield "unicode punctuation", "¡¿«»‹›„“”‘’‚–—…·•†‡§¶©®™°±×÷≠≤≥∞∑∏√∫€£¥¢₹₿"
    yield "camel and snake", "camelCaseWord PascalCase snake_case_word SCREAMING_SNAKE kebab-case dot.case HTTPServer2Go"
    yield "urls", "https://example.com/a/b?c=d&e=f#g mailto:a.b+c@d.org C:\\dir\\file.txt /usr/bin/env"


def _bytes():
    # Every code point of one byte and every character of Latin-1, alone and in a row.
    for code in range(256):
        yield f"U+{code:04X}", chr(code)
    yield "U+0000 to U+007F", "".join(map(chr, range(128)))
    yield "U+0080 to U+00FF", "".join(map(chr, range(128, 256)))
    # A character for each lead byte that UTF-8 has, and for each continuation byte.
    for lead in range(0xC2, 0xF5):
        if lead < 0xE0:
            text = bytes([lead, 0x85])
        elif lead < 0xF0:
            text = bytes([lead, 0x9F if lead == 0xED else 0xA5, 0xB1])
        else:
            text = bytes([lead, 0x8F if lead == 0xF4 else 0x9B, 0xA7, 0xBD])
        yield f"lead byte {lead:02X}", text.decode()
    for last in range(0x80, 0xC0):
        yield f"last byte {last:02X}", bytes([0xE1, 0xA8, last]).decode()


def _random():
    rng = random.Random(20240607)
    pools = [
        "abcdefghijklmnopqrstuvwxyz      ", "ABCxyz'sdtm 0123456789", " \t\n\r\u00a0\u3000ab1.,", "<|>_im/startend",
        "äöüßéèñçøåæœ ", "的一是不了人我在有他这为之大来以个中上们 ", "אבגדהוזח טיכל", "😀👍🏽\u200d\ufe0f❤🇩🇪 ",
        "\u0300\u0301\u0302aeiou ", "\n\n\n \n\t  x",
    ]
    for i in range(60):
        pool = "".join(rng.sample(pools, rng.randint(1, 4)))
        yield f"random {i}", "".join(rng.choice(pool) for _ in range(rng.randint(5, 120)))
    for i in range(20):
        text = []
        while len(text) < 60:
            code = rng.choice((rng.randrange(0x250), rng.randrange(0x3000), rng.randrange(0x10000), rng.randrange(0x110000)))
            if not 0xD800 <= code <= 0xDFFF:
                text.append(chr(code))
        yield f"random code points {i}", "".join(text)


def small():
    yield "empty", ""
    yield "prose", PROSE * 3
    yield "code", CODE
    for part in (_scripts, _emoji, _spaces, _numbers, _special, _contractions, _punctuation, _bytes, _random):
        yield from part()


def large():
    """Texts of 100 kB, named and rebuilt by the test itself: (name, unit, repeats)."""
    yield "100 kB of one letter", "a", 100_000
    yield "100 kB of spaces", " ", 100_000
    yield "100 kB of newlines", "\n", 100_000
    yield "100 kB of prose", PROSE, 100_000 // len(PROSE.encode())
    yield "100 kB of code", CODE, 100_000 // len(CODE.encode())
    yield "100 kB of Chinese without a space", "我能吞下玻璃而不伤身体", 3_000
    yield "100 kB of letters without a space", "loremipsumdolorsitamet", 4_500
    yield "100 kB of punctuation", "!?-=#", 20_000
    yield "100 kB of digits", "1234567890", 10_000
    yield "100 kB of an emoji", "👩‍👧", 9_000
