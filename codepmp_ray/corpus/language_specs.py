"""The languages that snippets can be taken from: one entry of `LANGUAGES` each.

An entry names the node types of the language's tree-sitter grammar; `snippets.py` holds the rule
that they feed and knows no language.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LanguageSpec:
    """How to parse one language and what in it is a snippet.

    Attributes:
        grammar: module with the tree-sitter grammar; `module:function` if the function that
            returns the pointer is not `language`.
        aliases: further names of the language in a data set's language column, in lower case.
        definitions: node type -> kind ("function" or "class"). The name is the node's field
            "name"; without one, the end of its chain of "declarator" fields, or its "type".
        wrappers: node type -> field holding a definition that the node belongs to (decorators,
            exports); an empty field name means its last child.
        required: node type -> (field, node types): it is a definition only if the field is there
            and of one of these types (of any type if there are none).
        containers: node types that are looked into for definitions (blocks, conditions), but
            which are no snippets themselves.
        fixed_text: query whose captures `@text` are literals over which indentation must stay as
            it is; `@free` takes literals out again (documentation strings).
        member_frame: what stands around a member of a class so that it parses by itself.
        comments: what a line of comment begins with.
        has_macros: source files need not be valid before the preprocessor has run; an error then
            costs the definitions that it is in and not the file.
        interpreters: programs in a script's first line ("#!") that run this language.
    """

    name: str
    grammar: str
    extensions: tuple[str, ...]
    aliases: tuple[str, ...]
    definitions: dict[str, str]
    containers: frozenset[str]
    fixed_text: str
    wrappers: dict[str, str] = field(default_factory=dict)
    required: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    member_frame: tuple[str, str] = ("", "")
    comments: tuple[str, ...] = ("//", "/*", "*/", "*")
    has_macros: bool = False
    interpreters: tuple[str, ...] = ()


_PYTHON = LanguageSpec(
    name="python",
    grammar="tree_sitter_python",
    extensions=(".py", ".pyi", ".pyw"),
    aliases=("python3", "py"),
    definitions={"function_definition": "function", "class_definition": "class"},
    wrappers={"decorated_definition": "definition"},
    containers=frozenset(
        "module block if_statement elif_clause else_clause try_statement except_clause "
        "finally_clause with_statement for_statement while_statement "
        "match_statement case_clause".split()
    ),
    fixed_text="(string) @text (expression_statement (string) @free)",
    comments=("#",),
    interpreters=("python", "pypy"),
)

# `const f = () => ...` is how much of today's JavaScript spells a function.
_FUNCTION_VALUES = frozenset({"arrow_function", "function_expression", "generator_function"})
_SCRIPT_DEFINITIONS = {
    "function_declaration": "function",
    "generator_function_declaration": "function",
    "method_definition": "function",
    "variable_declarator": "function",
    "class_declaration": "class",
}
_SCRIPT_WRAPPERS = {
    "export_statement": "declaration",
    "lexical_declaration": "",
    "variable_declaration": "",
}
_SCRIPT_CONTAINERS = frozenset(
    "program statement_block class_body if_statement else_clause try_statement catch_clause "
    "finally_clause".split()
)
_SCRIPT_FRAME = ("class X {\n", "\n}")

_JAVASCRIPT = LanguageSpec(
    name="javascript",
    grammar="tree_sitter_javascript",
    extensions=(".js", ".mjs", ".cjs", ".jsx"),
    aliases=("js", "jsx", "ecmascript"),
    definitions=_SCRIPT_DEFINITIONS,
    wrappers=_SCRIPT_WRAPPERS,
    required={"variable_declarator": ("value", _FUNCTION_VALUES)},
    containers=_SCRIPT_CONTAINERS,
    fixed_text="(template_string) @text",
    member_frame=_SCRIPT_FRAME,
    interpreters=("node", "nodejs", "bun"),
)


def _typescript(name: str, extensions: tuple[str, ...], aliases: tuple[str, ...]) -> LanguageSpec:
    return LanguageSpec(
        name=name,
        grammar=f"tree_sitter_typescript:language_{name}",
        extensions=extensions,
        aliases=aliases,
        definitions={
            **_SCRIPT_DEFINITIONS,
            "abstract_class_declaration": "class",
            "interface_declaration": "class",
            "enum_declaration": "class",
        },
        wrappers=_SCRIPT_WRAPPERS,
        required={"variable_declarator": ("value", _FUNCTION_VALUES)},
        containers=_SCRIPT_CONTAINERS
        | {"expression_statement", "internal_module", "module", "ambient_declaration"},
        fixed_text="(template_string) @text",
        member_frame=_SCRIPT_FRAME,
        interpreters=("deno", "ts-node", "tsx") if name == "typescript" else (),
    )


_JAVA = LanguageSpec(
    name="java",
    grammar="tree_sitter_java",
    extensions=(".java",),
    aliases=(),
    definitions={
        "class_declaration": "class",
        "interface_declaration": "class",
        "enum_declaration": "class",
        "record_declaration": "class",
        "annotation_type_declaration": "class",
        "method_declaration": "function",
        "constructor_declaration": "function",
    },
    containers=frozenset(
        {"program", "class_body", "interface_body", "enum_body", "enum_body_declarations"}
    ),
    fixed_text="(string_literal) @text",
    member_frame=("class X {\n", "\n}"),
)

_GO = LanguageSpec(
    name="go",
    grammar="tree_sitter_go",
    extensions=(".go",),
    aliases=("golang",),
    definitions={
        "function_declaration": "function",
        "method_declaration": "function",
        "type_spec": "class",
    },
    wrappers={"type_declaration": ""},
    required={"type_spec": ("type", frozenset({"struct_type", "interface_type"}))},
    containers=frozenset({"source_file"}),
    fixed_text="(raw_string_literal) @text",
)

_PREPROCESSOR = frozenset(
    "preproc_if preproc_ifdef preproc_else preproc_elif preproc_elifdef".split()
)
# A declaration without a body defines nothing that could be described.
_WITH_BODY: tuple[str, frozenset[str]] = ("body", frozenset())

_C = LanguageSpec(
    name="c",
    grammar="tree_sitter_c",
    extensions=(".c", ".h"),
    aliases=(),
    definitions={
        "function_definition": "function",
        "struct_specifier": "class",
        "union_specifier": "class",
        "enum_specifier": "class",
    },
    required={
        "struct_specifier": _WITH_BODY,
        "union_specifier": _WITH_BODY,
        "enum_specifier": _WITH_BODY,
    },
    containers=_PREPROCESSOR | {"translation_unit", "linkage_specification", "declaration_list"},
    fixed_text="(string_literal) @text",
    has_macros=True,
)

_CPP = LanguageSpec(
    name="cpp",
    grammar="tree_sitter_cpp",
    extensions=(".cc", ".cpp", ".cxx", ".c++", ".hh", ".hpp", ".hxx", ".cu", ".cuh"),
    aliases=("c++", "cuda"),
    definitions={**_C.definitions, "class_specifier": "class"},
    wrappers={"template_declaration": ""},
    required={
        **_C.required,
        "class_specifier": _WITH_BODY,
        # not `= default`, `= delete`
        "function_definition": _WITH_BODY,
    },
    containers=_C.containers | {"namespace_definition", "field_declaration_list"},
    fixed_text="[(raw_string_literal) (string_literal)] @text",
    member_frame=("struct X {\n", "\n};"),
    has_macros=True,
)

_RUST = LanguageSpec(
    name="rust",
    grammar="tree_sitter_rust",
    extensions=(".rs",),
    aliases=("rs",),
    definitions={
        "function_item": "function",
        "struct_item": "class",
        "enum_item": "class",
        "union_item": "class",
        "trait_item": "class",
        "impl_item": "class",
    },
    containers=frozenset({"source_file", "mod_item", "declaration_list"}),
    fixed_text="[(raw_string_literal) (string_literal)] @text",
    member_frame=("impl X {\n", "\n}"),
)

LANGUAGES = {
    spec.name: spec
    for spec in (
        _PYTHON,
        _JAVASCRIPT,
        _typescript("typescript", (".ts", ".mts", ".cts"), ("ts",)),
        _typescript("tsx", (".tsx",), ()),
        _JAVA,
        _GO,
        _C,
        _CPP,
        _RUST,
    )
}
