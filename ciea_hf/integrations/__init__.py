"""Components for LangChain, LlamaIndex and Haystack that embed a captioned image as one document.

Each module needs its framework, which the extra of the same name installs.
"""
