/** The numbers of the GGUF format that the header check needs. Source: ggml's gguf.md and ggml.h. */

/** Bytes of each scalar metadata type; 8 (string) and 9 (array) have no fixed size. */
export const SCALAR_BYTES: ReadonlyMap<number, number> = new Map([
  [0, 1],
  [1, 1],
  [2, 2],
  [3, 2],
  [4, 4],
  [5, 4],
  [6, 4],
  [7, 1],
  [10, 8],
  [11, 8],
  [12, 8],
]);
export const U16_TYPE = 2;
export const BOOL_TYPE = 7;
export const STRING_TYPE = 8;
export const ARRAY_TYPE = 9;

/** Elements per block and bytes per block of a tensor type. */
export interface BlockLayout {
  readonly elements: number;
  readonly sizeBytes: number;
}

const layout = (elements: number, sizeBytes: number): BlockLayout => ({ elements, sizeBytes });

/** Tensor types by their number. One that is missing here is not an error: newer files have newer types. */
export const TENSOR_LAYOUTS: ReadonlyMap<number, BlockLayout> = new Map([
  [0, layout(1, 4)], // F32
  [1, layout(1, 2)], // F16
  [2, layout(32, 18)], // Q4_0
  [3, layout(32, 20)], // Q4_1
  [6, layout(32, 22)], // Q5_0
  [7, layout(32, 24)], // Q5_1
  [8, layout(32, 34)], // Q8_0
  [9, layout(32, 36)], // Q8_1
  [10, layout(256, 84)], // Q2_K
  [11, layout(256, 110)], // Q3_K
  [12, layout(256, 144)], // Q4_K
  [13, layout(256, 176)], // Q5_K
  [14, layout(256, 210)], // Q6_K
  [15, layout(256, 292)], // Q8_K
  [16, layout(256, 66)], // IQ2_XXS
  [17, layout(256, 74)], // IQ2_XS
  [18, layout(256, 98)], // IQ3_XXS
  [19, layout(256, 50)], // IQ1_S
  [20, layout(32, 18)], // IQ4_NL
  [21, layout(256, 110)], // IQ3_S
  [22, layout(256, 82)], // IQ2_S
  [23, layout(256, 136)], // IQ4_XS
  [24, layout(1, 1)], // I8
  [25, layout(1, 2)], // I16
  [26, layout(1, 4)], // I32
  [27, layout(1, 8)], // I64
  [28, layout(1, 8)], // F64
  [29, layout(256, 56)], // IQ1_M
  [30, layout(1, 2)], // BF16
  [34, layout(256, 54)], // TQ1_0
  [35, layout(256, 66)], // TQ2_0
  [39, layout(32, 17)], // MXFP4
]);

/** Names of `general.file_type`. */
export const FILE_TYPES: ReadonlyMap<number, string> = new Map([
  [0, 'F32'],
  [1, 'F16'],
  [2, 'Q4_0'],
  [3, 'Q4_1'],
  [7, 'Q8_0'],
  [8, 'Q5_0'],
  [9, 'Q5_1'],
  [10, 'Q2_K'],
  [11, 'Q3_K_S'],
  [12, 'Q3_K_M'],
  [13, 'Q3_K_L'],
  [14, 'Q4_K_S'],
  [15, 'Q4_K_M'],
  [16, 'Q5_K_S'],
  [17, 'Q5_K_M'],
  [18, 'Q6_K'],
  [19, 'IQ2_XXS'],
  [20, 'IQ2_XS'],
  [21, 'Q2_K_S'],
  [22, 'IQ3_XS'],
  [23, 'IQ3_XXS'],
  [24, 'IQ1_S'],
  [25, 'IQ4_NL'],
  [26, 'IQ3_S'],
  [27, 'IQ3_M'],
  [28, 'IQ2_S'],
  [29, 'IQ2_M'],
  [30, 'IQ4_XS'],
  [31, 'IQ1_M'],
  [32, 'BF16'],
  [36, 'TQ1_0'],
  [37, 'TQ2_0'],
  [38, 'MXFP4_MOE'],
]);
