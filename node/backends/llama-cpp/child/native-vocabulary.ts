/** A loaded model's tokens: from text, to text and bytes, and the ones that mean something. In the engine child. */
import { type LlamaModel, LlamaVocabularyType, type Token } from 'node-llama-cpp';
import type { Detokenize } from '../output/output-pipeline.ts';
import type { Tokenizer } from '../prompt/prompt-tokens.ts';
import { spelling } from './native-internals.ts';

/** Tokens that stand before, between and after the texts of a prompt that asks for what is missing in the middle. */
export interface FillTokens {
  readonly prefix: number;
  readonly suffix: number;
  readonly middle: number;
}

export interface TokenPiece {
  /** What the token adds to the text that `previous` is; U+FFFD for parts of characters. */
  readonly token: string;
  readonly bytes: readonly number[];
}

export interface Vocabulary {
  /** Token ids are below it. */
  readonly size: number;
  readonly tokenizer: Tokenizer;
  /** Control tokens come out as nothing. */
  readonly detokenize: Detokenize;
  /** Does this token end an answer? */
  endsAnswer(token: number): boolean;
  /** Control tokens come out as their text. */
  piece(token: number, previous: number | undefined): TokenPiece;
  /** Every token that acts when its text is parsed, by its text. */
  readonly controlTokens: ReadonlyMap<string, number>;
  /** null where the model was not made for it. */
  readonly fill: FillTokens | null;
}

export function vocabularyOf(model: LlamaModel): Vocabulary {
  return {
    size: model.fileInfo.metadata.tokenizer?.ggml?.tokens.length ?? 0,
    tokenizer: tokenizerOf(model),
    detokenize: (tokens, previous) => model.detokenize(asTokens(tokens), false, asTokens(previous)),
    endsAnswer: (token) => model.isEogToken(token as Token),
    piece: (token, previous) => {
      const text = model.detokenize(asTokens([token]), true, previous === undefined ? [] : asTokens([previous]));
      return { token: text, bytes: text.includes('\uFFFD') ? rawBytes(model, token, text) : [...Buffer.from(text)] };
    },
    controlTokens: controlTokensOf(model),
    fill: fillTokensOf(model),
  };
}

function tokenizerOf(model: LlamaModel): Tokenizer {
  const { tokens } = model;
  return {
    tokenize: (text, special, continues) => model.tokenize(text, special, continues ? 'trimLeadingSpace' : undefined),
    leadingToken: tokens.shouldPrependBosToken ? tokens.bos : null,
  };
}

function controlTokensOf(model: LlamaModel): Map<string, number> {
  const found = new Map<string, number>();
  for (const token of model.iterateAllTokens()) {
    const { control, unknown } = model.getTokenAttributes(token);
    if (control || unknown) found.set(model.detokenize([token], true), token);
  }
  return found;
}

function fillTokensOf(model: LlamaModel): FillTokens | null {
  const { prefix, suffix, middle } = model.tokens.infill;
  return prefix === null || suffix === null || middle === null ? null : { prefix, suffix, middle };
}

/** Of a token that is no whole text. Vocabularies of other kinds do not tell: the bytes of what is shown then. */
function rawBytes(model: LlamaModel, token: number, text: string): number[] {
  const spelt = spelling(model, token);
  const hex = /^<0x([0-9A-F]{2})>$/i.exec(spelt)?.[1];
  if (hex !== undefined) return [Number.parseInt(hex, 16)];
  const bytes = model.vocabularyType === LlamaVocabularyType.bpe ? byteLevel(spelt) : null;
  return bytes ?? [...Buffer.from(text)];
}

const PRINTABLE: readonly (readonly [first: number, last: number])[] = [
  [0x21, 0x7e],
  [0xa1, 0xac],
  [0xae, 0xff],
];

/**
 * Bytes of a byte-level BPE token: bytes that print stand for themselves, all others, in ascending order, for the
 * characters from U+0100 on. null for text that is not spelt so.
 */
export function byteLevel(spelt: string): number[] | null {
  const bytes: number[] = [];
  for (const character of spelt) {
    const code = character.codePointAt(0) ?? 0;
    const byte = isPrintable(code) ? code : hiddenByte(code - 0x100);
    if (byte === undefined) return null;
    bytes.push(byte);
  }
  return bytes;
}

function isPrintable(code: number): boolean {
  return PRINTABLE.some(([first, last]) => code >= first && code <= last);
}

/** The n-th byte that does not print. */
function hiddenByte(n: number): number | undefined {
  let left = n;
  for (let byte = 0; byte < 256 && left >= 0; byte += 1) {
    if (isPrintable(byte)) continue;
    if (left === 0) return byte;
    left -= 1;
  }
  return undefined;
}

/** node-llama-cpp brands its token ids; they are plain numbers to everybody else. */
function asTokens(tokens: readonly number[]): Token[] {
  return tokens as number[] as Token[];
}
