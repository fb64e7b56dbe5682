"""hack/bench: this project beside llama.cpp's own programs and beside the machine's limits, in turns on one machine."""
