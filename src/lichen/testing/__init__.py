"""Public fakes, for tests of lichen and of what is built on it. Production code imports none.

``ScriptedEngine`` (an engine without a model) · ``FakeOpenAIServer`` (a server that misbehaves on
command) · ``clock`` · ``records`` · ``summaries`` · fake counters. Import from the modules.
"""
