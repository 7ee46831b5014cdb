"""Triton's interpreter, which prepares its language once a launch and not in every call.

Each function that a kernel calls has it wrap the whole of `triton.language` anew, which takes most
of its time and changes nothing: what is wrapped already is left as it is.
"""

from triton.runtime import interpreter


def prepare_once():
    """From here on; for a process in which kernels are interpreted."""
    prepare, ready = interpreter._patch_lang, set()

    def once(function):
        if id(function.__globals__) in ready:
            return interpreter._LangPatchScope()
        ready.add(id(function.__globals__))
        scope = prepare(function)
        restore = scope.restore

        def restored():
            ready.clear()
            restore()

        scope.restore = restored
        return scope

    if prepare.__name__ != "once":
        interpreter._patch_lang = once
