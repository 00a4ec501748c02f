"""The generators in PyTorch, with the names of our safetensors, so that one file holds the weights of both.

Written from the papers and from what the config says, not from our code's operations: `nn.LSTMCell`, `nn.RNNCell`, `nn.LayerNorm` and
`scaled_dot_product_attention` do the work. Linear maps are stored the other way round here, which `load` and `names` see to.
"""
import math
import re

import torch
import torch.nn.functional as F
from torch import nn


class Gates(nn.Module):
    """The weights of a cell: ours name them input and recurrent, PyTorch weight_ih and weight_hh."""

    def __init__(self, kind, size, hidden):
        super().__init__()
        self.kind = kind
        count = 4 if kind == "lstm" else 1
        self.input = nn.Linear(size, count * hidden)
        self.recurrent = nn.Linear(hidden, count * hidden, bias=False)

    def start(self, hidden):
        return (hidden, torch.zeros_like(hidden)) if self.kind == "lstm" else (hidden,)

    def forward(self, x, state):
        gates = self.input(x) + self.recurrent(state[0])
        if self.kind == "rnn":
            return (gates.tanh(),)
        # Ours are cut as forget, input, candidate and output.
        keep, write, new, show = gates.chunk(4, 1)
        cell = keep.sigmoid() * state[1] + write.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell


class Encoder(nn.Module):
    def __init__(self, kind, size, hidden):
        super().__init__()
        self.forward_, self.backward = Gates(kind, size, hidden), Gates(kind, size, hidden)
        self.bridge = nn.Linear(2 * hidden, hidden)
        self.hidden = hidden

    def run(self, cell, x, mask, places):
        state = cell.start(x.new_zeros(x.shape[0], self.hidden))
        states = [None] * x.shape[1]
        for at in places:
            m = mask[:, at:at + 1]
            state = tuple(torch.where(m, new, old) for new, old in zip(cell(x[:, at], state), state))
            states[at] = state[0]
        return torch.stack(states, 1), state[0]

    def forward(self, x, mask):
        forwards, last = self.run(self.forward_, x, mask, range(x.shape[1]))
        backwards, first = self.run(self.backward, x, mask, reversed(range(x.shape[1])))
        return torch.cat([forwards, backwards], 2), self.bridge(torch.cat([last, first], 1)).tanh()


class Copying(nn.Module):
    def __init__(self, state, memory):
        super().__init__()
        self.query = nn.Linear(state, memory, bias=False)
        self.gate = nn.Linear(state, 1)

    def forward(self, logits, states, memory, source, mask):
        scores = self.query(states) @ memory.transpose(1, 2) / math.sqrt(memory.shape[2])
        weights = scores.masked_fill(~mask[:, None], -math.inf).softmax(2)
        gate = self.gate(states).sigmoid()
        places = source[:, None].expand(-1, states.shape[1], -1)
        mixed = (logits.softmax(2) * gate).scatter_add(2, places, weights * (1 - gate))
        return (mixed + 1e-9).log()


class Recurrent(nn.Module):
    """`rnn`, `lstm` and, with attention, `attention_lstm`."""

    def __init__(self, config, source, target):
        super().__init__()
        kind, size, hidden = config["kind"], config["embedding"], config["hidden"]
        self.attends = kind == "attention_lstm"
        cell = "rnn" if kind == "rnn" else "lstm"
        self.source_embedding, self.target_embedding = nn.Embedding(source, size), nn.Embedding(target, size)
        self.encoder = Encoder(cell, size, hidden)
        seen = size + hidden
        if self.attends:
            self.attention_key = nn.Linear(2 * hidden, hidden)
            self.attention_query = nn.Linear(hidden, hidden, bias=False)
            self.attention_score = nn.Linear(hidden, 1, bias=False)
            seen = size + 3 * hidden
        self.decoder = Gates(cell, seen - hidden, hidden)
        self.readout = nn.Linear(seen, hidden)
        self.output = nn.Linear(hidden, target)
        self.copying = Copying(seen, 2 * hidden) if config.get("copy") else None
        self.dropout = nn.Dropout(config["dropout"])

    def begin(self, source, mask):
        states, hidden = self.encoder(self.dropout(self.source_embedding(source)), mask)
        return states, self.attention_key(states) if self.attends else None, self.decoder.start(hidden)

    def advance(self, x, states, keys, mask, state):
        if self.attends:
            scores = self.attention_score((keys + self.attention_query(state[0])[:, None]).tanh()).squeeze(2)
            weights = scores.masked_fill(~mask, -math.inf).softmax(1)
            x = torch.cat([x, (weights[:, None] @ states).squeeze(1)], 1)
        state = self.decoder(x, state)
        return torch.cat([x, state[0]], 1), state

    def forward(self, source, mask, inputs):
        states, keys, state = self.begin(source, mask)
        embedded = self.dropout(self.target_embedding(inputs))
        seen = []
        for at in range(inputs.shape[1]):
            one, state = self.advance(embedded[:, at], states, keys, mask, state)
            seen.append(one)
        seen = torch.stack(seen, 1)
        logits = self.output(self.dropout(self.readout(seen).tanh()))
        return self.copying(logits, seen, states, source, mask) if self.copying else logits


class Attention(nn.Module):
    def __init__(self, config, own):
        super().__init__()
        width, self.heads = config["width"], config["heads"]
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.rotary = own and config["positions"] == "rotary"
        self.query_norm = self.key_norm = None
        if config["qk_norm"]:
            self.query_norm, self.key_norm = (nn.RMSNorm(width // self.heads, eps=1e-5) for _ in range(2))

    def split(self, x, norm=None, turn=False):
        x = x.unflatten(2, (self.heads, -1)).transpose(1, 2)
        x = norm(x) if norm else x
        if turn:
            half = x.shape[3] // 2
            angles = torch.arange(x.shape[2])[:, None] / 10000 ** (torch.arange(half) / half)
            a, b, sin, cos = x[..., :half], x[..., half:], angles.sin(), angles.cos()
            x = torch.cat([a * cos - b * sin, b * cos + a * sin], 3)
        return x

    def forward(self, x, over, mask=None, causal=False):
        query = self.split(self.query(x), self.query_norm, self.rotary)
        key = self.split(self.key(over), self.key_norm, self.rotary)
        seen = F.scaled_dot_product_attention(query, key, self.split(self.value(over)), attn_mask=mask, is_causal=causal)
        return self.output(seen.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.inner = nn.Linear(config["width"], config["feed_forward"])
        self.outer = nn.Linear(config["feed_forward"], config["width"])
        self.dropout = nn.Dropout(config["dropout"])
        self.activation = F.gelu if config["activation"] == "gelu" else F.relu

    def forward(self, x):
        return self.outer(self.dropout(self.activation(self.inner(x))))


class Layer(nn.Module):
    def __init__(self, config, crosses):
        super().__init__()
        width = config["width"]
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(config, True)
        if crosses:
            self.cross_norm, self.cross = nn.LayerNorm(width), Attention(config, False)
        self.feed_forward_norm, self.feed_forward = nn.LayerNorm(width), FeedForward(config)
        self.dropout, self.crosses = nn.Dropout(config["dropout"]), crosses

    def forward(self, x, mask, memory=None):
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, None if self.crosses else mask, self.crosses))
        if self.crosses:
            x = x + self.dropout(self.cross(self.cross_norm(x), memory, mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Transformer(nn.Module):
    def __init__(self, config, source, target):
        super().__init__()
        width = config["width"]
        self.source_embedding, self.target_embedding = nn.Embedding(source, width), nn.Embedding(target, width)
        self.source_positions = self.target_positions = None
        if config["positions"] == "learned":
            self.source_positions, self.target_positions = (nn.Embedding(config["longest"], width) for _ in range(2))
        self.encoder = nn.ModuleList(Layer(config, False) for _ in range(config["encoder_layers"]))
        self.decoder = nn.ModuleList(Layer(config, True) for _ in range(config["decoder_layers"]))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.output = None if config["tied"] else nn.ModuleDict({"own": nn.Linear(width, target, bias=False)})
        self.copying = Copying(width, width) if config.get("copy") else None
        self.dropout, self.width = nn.Dropout(config["dropout"]), width

    def embed(self, table, positions, ids):
        x = table(ids) * math.sqrt(self.width)
        if positions is not None:
            x = x + positions(torch.arange(ids.shape[1]).clamp(max=positions.num_embeddings - 1))
        return self.dropout(x)

    def forward(self, source, mask, inputs):
        seen = mask[:, None, None]
        x = self.embed(self.source_embedding, self.source_positions, source)
        for layer in self.encoder:
            x = layer(x, seen)
        memory = self.encoder_norm(x)
        x = self.embed(self.target_embedding, self.target_positions, inputs)
        for layer in self.decoder:
            x = layer(x, seen, memory)
        x = self.decoder_norm(x)
        logits = self.output["own"](x) if self.output is not None else x @ self.target_embedding.weight.T
        return self.copying(logits, x, memory, source, mask) if self.copying else logits


def t5_config(config, vocabulary, **sizes):
    from transformers import T5Config

    return T5Config(
        vocab_size=vocabulary, d_model=config["width"], d_kv=config["head_width"], d_ff=config["feed_forward"], num_heads=config["heads"],
        feed_forward_proj="gated-gelu" if config["gated"] else "relu", relative_attention_num_buckets=config["buckets"],
        relative_attention_max_distance=config["farthest"], layer_norm_epsilon=config["epsilon"], dropout_rate=0.0, **sizes,
    )


class T5(nn.Module):
    """transformers' own."""

    def __init__(self, config, vocabulary):
        super().__init__()
        from transformers import T5ForConditionalGeneration

        sizes = {"num_layers": config["encoder_layers"], "num_decoder_layers": config["decoder_layers"]}
        self.model = T5ForConditionalGeneration(t5_config(config, vocabulary, tie_word_embeddings=config["scaled"], **sizes))

    def forward(self, source, mask, inputs):
        return self.model(input_ids=source, attention_mask=mask, decoder_input_ids=inputs).logits

    def ours(self, name):
        return t5_name(name.removeprefix("model."), "embedding")


class Paired(nn.Module):
    """transformers' encoder and decoder, and a projection between them."""

    def __init__(self, config, source, target):
        super().__init__()
        from transformers import T5EncoderModel, T5ForConditionalGeneration

        reads, writes = config["encoder"], config["decoder"]
        self.reading = T5EncoderModel(t5_config(reads, source, num_layers=reads["layers"]))
        self.projection = nn.Linear(reads["width"], writes["width"])
        sizes = {"num_layers": 0, "num_decoder_layers": writes["layers"], "tie_word_embeddings": config["scaled"]}
        self.writing = T5ForConditionalGeneration(t5_config(writes, target, **sizes))
        # It has an encoder of no layers, which nothing calls.
        self.writing.encoder = nn.Identity()

    def forward(self, source, mask, inputs):
        states = self.projection(self.reading(input_ids=source, attention_mask=mask).last_hidden_state)
        written = self.writing.decoder(input_ids=inputs, encoder_hidden_states=states, encoder_attention_mask=mask).last_hidden_state
        scale = self.writing.config.d_model ** -0.5 if self.writing.config.scale_decoder_outputs else 1.0
        return self.writing.lm_head(written * scale)

    def ours(self, name):
        half, rest = name.split(".", 1)
        embedding = {"reading": "source_embedding", "writing": "target_embedding"}.get(half)
        return t5_name(rest, embedding) if embedding else name


def t5_name(theirs, embedding):
    """Our name of a parameter of transformers' T5."""
    theirs = re.sub(r"^shared", embedding, theirs)
    theirs = re.sub(r"block\.0\.layer\.0\.SelfAttention\.relative_attention_bias", "relative.scores", theirs)
    theirs = theirs.replace("final_layer_norm.weight", "norm.gamma")
    theirs = re.sub(r"^(\w+)\.block\.(\d+)\.layer\.", r"\1.layers.\2.", theirs)
    last = 1 if theirs.startswith("encoder") else 2
    norms = {0: "attention_norm", 1: "cross_norm", last: "feed_forward_norm"}
    theirs = re.sub(r"(layers\.\d+)\.(\d)\.layer_norm\.weight", lambda m: f"{m[1]}.{norms[int(m[2])]}.gamma", theirs)
    maps = {"q": "query", "k": "key", "v": "value", "o": "output", "wi": "inner", "wi_0": "inner", "wi_1": "gate", "wo": "outer"}
    parts = {"SelfAttention": "attention", "EncDecAttention": "cross", "DenseReluDense": "feed_forward"}
    return re.sub(r"\.\d\.(\w+)\.(\w+)\.weight$", lambda m: f".{parts[m[1]]}.{maps[m[2]]}.weight", theirs)


def build(config, source, target):
    if config["kind"] == "t5":
        return T5(config, source)
    if config["kind"] == "paired":
        return Paired(config, source, target)
    return (Transformer if config["kind"] == "transformer" else Recurrent)(config, source, target)


def named(model):
    """Our name, parameter, and whether it is stored the other way round."""
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    norms = {id(p) for m in model.modules() if isinstance(m, (nn.LayerNorm, nn.RMSNorm)) for p in m.parameters()}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if hasattr(model, "ours"):
            # A table of embeddings that is the output too is a linear map besides.
            yield model.ours(name), parameter, id(parameter) in linear - embeddings
            continue
        name = name.replace("forward_.", "forward.")
        if id(parameter) in norms:
            name = name.removesuffix("weight") + "gamma" if name.endswith("weight") else name.removesuffix("bias") + "beta"
        yield name, parameter, id(parameter) in linear


def load(model, weights):
    """Puts the tensors of one of our files into a model: all of them, and no others."""
    weights = dict(weights)
    with torch.no_grad():
        for name, parameter, turned in named(model):
            tensor = weights.pop(name)
            parameter.copy_(tensor.T if turned else tensor)
    assert not weights, f"unknown tensors: {sorted(weights)}"
