"""The language of a file whose name leaves it open, by what stands in it.

`.h` is C, C++, CUDA or Objective-C; `.ts` and `.rs` are also what Qt and Android call theirs.
"""

from __future__ import annotations

import re

# Comments, texts and what a C compiler does not see are no evidence.
_NO_C = re.compile(
    rb"//[^\n]*|/\*(?:[^*]+|\*(?!/))*+(?:\*/)?"
    rb"|\"(?:[^\"\\\n]|\\.){2,}\"|'\\?.'"
    rb"|^[ \t]*#[ \t]*if(?:def[ \t]+|[ \t]+defined[ \t(]+|[ \t(]+)__cplusplus\b.{0,2000}?"
    rb"^[ \t]*#[ \t]*(?:else|endif)\b",
    re.DOTALL | re.MULTILINE,
)
_OBJECTIVE_C = re.compile(
    rb"^[ \t]*(?:@(?:interface|protocol|class|end|import)\b|#import\b)"
    rb"|\bNS_(?:ENUM|OPTIONS|CLOSED_ENUM|ASSUME_NONNULL_BEGIN)\b",
    re.M,
)
_CPP = re.compile(
    rb"\w[ \t]*::[ \t]*[\w~*]|^[ \t]*(?:template[ \t]*<|(?:inline[ \t]+)?namespace\b|class[ \t]+\w"
    rb"|using[ \t]+\w|(?:public|private|protected)[ \t]*:)"
    rb"|^[ \t]*(?:virtual[ \t]+)?~[A-Za-z_]\w*[ \t]*\([ \t]*(?:void)?\)[ \t]*[;{=on]"
    rb"|\b(?:constexpr|noexcept|nullptr|decltype|typename|mutable|static_cast|reinterpret_cast)\b"
    rb"|\boperator[ \t]*[^\w\s;,)]|^[ \t]*#[ \t]*include[ \t]*<[a-z_]+>"
    rb"|\benum[ \t]+(?:class|struct)[ \t]|\bfriend[ \t]+class\b"
    rb"|\bstruct[ \t]+(?:\w+[ \t]+){0,2}\w+[ \t]+final\b"
    rb"|^[ \t]*struct[ \t]+(?:\w+[ \t]+){0,2}\w+[ \t]*:[ \t]*[A-Za-z_]"
    rb"|\)[ \t]*(?:const[ \t]*)?=[ \t]*(?:default|delete)[ \t]*;"
    rb"|^[ \t]*(?:(?:static|inline)[ \t]+)*auto[ \t][^;\n]*\)[ \t]*->"
    rb"|\)[ \t]*const[ \t]*[;{]",
    re.MULTILINE,
)
# The parameters of a declaration, one of them a reference. `return f(a & b)` is an expression.
_REFERENCE = re.compile(
    rb"^[ \t]*(?!(?:else|return|typedef|case|goto|do|sizeof)\b)(?:[A-Za-z_]\w*[ \t*&]+)+"
    rb"[A-Za-z_]\w*[ \t]*\((?:[^()\n]*,)?[ \t]*(?:const[ \t]+)?[A-Za-z_]\w*[ \t]*&&?[ \t]*"
    rb"[A-Za-z_]\w*[ \t]*[,)]",
    re.MULTILINE,
)
_KERNEL = re.compile(
    rb"^(?![ \t]*(?:#|//|\*))(?:[^\n]*[>\s])?__(?:global|device)__\s", re.MULTILINE
)
# Qt's translations and Android's views; RenderScript.
_MARKUP = (b"<?xml", b"<!DOCTYPE")
_RENDERSCRIPT = re.compile(rb"^[ \t]*#pragma[ \t]+(?:version|rs)\b", re.MULTILINE)


def by_content(language: str, extension: str, data: bytes) -> str | None:
    """The language of `data`, whose name says `language`; None for what is none that is known."""
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_MARKUP):
        return None
    if language == "rust" and _RENDERSCRIPT.search(data[:2_000]):
        return None
    if language == "c" and extension in (".h", ".C"):
        language = _of_header(data)
    if (
        language == "cpp"
        and (b"__global__" in data or b"__device__" in data)
        and _KERNEL.search(data)
    ):
        return "cuda"
    return language or None


def _of_header(data: bytes) -> str:
    text = _NO_C.sub(b" ", data)
    if _OBJECTIVE_C.search(text):
        return ""
    # C says it to C++ alone, behind a question for __cplusplus.
    is_linked = b'extern "C"' in text and b"__cplusplus" not in data
    return "cpp" if is_linked or _CPP.search(text) or _REFERENCE.search(text) else "c"
