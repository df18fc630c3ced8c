/** Turns exported weights into the demo model: `node make-demo.ts EXPORT OUT.gguf [F16|Q8_0]`. */
import { readFileSync } from 'node:fs';
import { type Metadata, type Tensor, writeGguf } from './gguf-writer.ts';

interface Export {
  readonly tensors: readonly { name: string; dims: readonly number[]; offset: number; count: number }[];
  readonly tokenizer: {
    readonly vocab: readonly string[];
    readonly merges: readonly string[];
    /** Tokens of their own that are shown as text. */
    readonly marks: readonly string[];
    readonly control: readonly string[];
  };
  readonly shape: {
    readonly dim: number;
    readonly layers: number;
    readonly heads: number;
    readonly ffn: number;
    readonly contextTokens: number;
    readonly ropeBase: number;
    readonly normEpsilon: number;
  };
}

const FILE_TYPE = { F16: 1, Q8_0: 7 } as const;
const TOKEN_TYPE = { normal: 1, control: 3, userDefined: 4 } as const;
const DESCRIPTION =
  'A tiny llama made for meshnode, so that a node answers before a bigger model is chosen: small talk, capitals, ' +
  'small sums, stories, tool calls, JSON, thoughts on request and fill in the middle, in English.';

const [source, target, quantization = 'F16'] = process.argv.slice(2);
if (source === undefined || target === undefined || (quantization !== 'F16' && quantization !== 'Q8_0')) {
  process.stderr.write('usage: node make-demo.ts EXPORT OUT.gguf [F16|Q8_0]\n');
  process.exit(2);
}
const { tensors, tokenizer, shape } = JSON.parse(readFileSync(`${source}.json`, 'utf8')) as Export;
const template = readFileSync(new URL('./chat-template.jinja', import.meta.url), 'utf8');
const raw = readFileSync(`${source}.bin`);
const weights = new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength));

writeGguf(
  target,
  metadata(FILE_TYPE[quantization]),
  tensors.map(
    ({ name, dims, offset, count }): Tensor => ({
      name,
      dims,
      // Vectors stay in full precision: they are small, and norms are sensitive.
      type: dims.length === 1 ? 'F32' : quantization,
      data: weights.subarray(offset, offset + count),
    }),
  ),
);

function metadata(fileType: number): Metadata[] {
  const { vocab, merges } = tokenizer;
  const idOf = (token: string): number => vocab.indexOf(token);
  return [
    ['general.architecture', 'str', 'llama'],
    ['general.name', 'str', 'meshnode-demo'],
    ['general.description', 'str', DESCRIPTION],
    ['general.license', 'str', 'Apache-2.0'],
    ['general.file_type', 'u32', fileType],
    ['general.quantization_version', 'u32', 2],
    ['llama.context_length', 'u32', shape.contextTokens],
    ['llama.embedding_length', 'u32', shape.dim],
    ['llama.block_count', 'u32', shape.layers],
    ['llama.feed_forward_length', 'u32', shape.ffn],
    ['llama.attention.head_count', 'u32', shape.heads],
    ['llama.attention.head_count_kv', 'u32', shape.heads],
    ['llama.attention.layer_norm_rms_epsilon', 'f32', shape.normEpsilon],
    ['llama.rope.dimension_count', 'u32', shape.dim / shape.heads],
    ['llama.rope.freq_base', 'f32', shape.ropeBase],
    ['llama.vocab_size', 'u32', vocab.length],
    ['tokenizer.ggml.model', 'str', 'gpt2'],
    ['tokenizer.ggml.pre', 'str', 'gpt-2'],
    ['tokenizer.ggml.tokens', 'arr:str', vocab],
    ['tokenizer.ggml.token_type', 'arr:i32', vocab.map(tokenType)],
    ['tokenizer.ggml.merges', 'arr:str', merges],
    ['tokenizer.ggml.bos_token_id', 'u32', idOf('<|endoftext|>')],
    ['tokenizer.ggml.eos_token_id', 'u32', idOf('<|im_end|>')],
    ['tokenizer.ggml.padding_token_id', 'u32', idOf('<|endoftext|>')],
    ['tokenizer.ggml.fim_pre_token_id', 'u32', idOf('<|fim_prefix|>')],
    ['tokenizer.ggml.fim_suf_token_id', 'u32', idOf('<|fim_suffix|>')],
    ['tokenizer.ggml.fim_mid_token_id', 'u32', idOf('<|fim_middle|>')],
    ['tokenizer.ggml.add_bos_token', 'bool', false],
    ['tokenizer.chat_template', 'str', template],
  ];
}

function tokenType(token: string): number {
  if (tokenizer.control.includes(token)) return TOKEN_TYPE.control;
  return tokenizer.marks.includes(token) ? TOKEN_TYPE.userDefined : TOKEN_TYPE.normal;
}
