/** What a JSON schema allows, as far as an engine will write it: every value of a shape is valid, though not every valid value need be one. */

/** Named by JSON schema's `format`. */
export const STRING_FORMATS = ['date', 'time', 'date-time', 'uuid', 'ipv4', 'email', 'hostname', 'uri'] as const;
export type StringFormat = (typeof STRING_FORMATS)[number];

export type Shape =
  | { readonly kind: 'any' }
  | { readonly kind: 'boolean' }
  | { readonly kind: 'null' }
  /** One of these JSON values, written without blanks. */
  | { readonly kind: 'literal'; readonly values: readonly unknown[] }
  | { readonly kind: 'union'; readonly options: readonly Shape[] }
  /** A key of `SchemaShapes.named`. */
  | { readonly kind: 'named'; readonly name: string }
  | StringShape
  | NumberShape
  | ObjectShape
  | ArrayShape;

export interface StringShape {
  readonly kind: 'string';
  /** In code points. */
  readonly minLength: number;
  readonly maxLength: number | null;
  /** Neither stands beside the other or a length. */
  readonly format: StringFormat | null;
  readonly pattern: Pattern | null;
}

/** What a text is made of, from its beginning to its end. */
export type Pattern =
  /** One character: of these code points, or of all others. */
  | { readonly kind: 'set'; readonly not: boolean; readonly ranges: readonly (readonly [from: number, to: number])[] }
  | { readonly kind: 'sequence'; readonly parts: readonly Pattern[] }
  | { readonly kind: 'choice'; readonly options: readonly Pattern[] }
  /** `part` is never empty. */
  | { readonly kind: 'repeat'; readonly part: Pattern; readonly least: number; readonly most: number | null };

/** Bounds are included; null for none. */
export interface NumberShape {
  readonly kind: 'number';
  readonly integer: boolean;
  readonly minimum: Bound | null;
  readonly maximum: Bound | null;
}

export interface Bound {
  readonly value: number;
  /** The bound itself is not allowed. */
  readonly exclusive: boolean;
}

export interface ObjectShape {
  readonly kind: 'object';
  /** In the order in which they are written. */
  readonly members: readonly Member[];
  /** Of members by other names; null where there are none. */
  readonly rest: Shape | null;
}

export interface Member {
  readonly name: string;
  readonly shape: Shape;
  readonly required: boolean;
}

export interface ArrayShape {
  readonly kind: 'array';
  /** The first items, all of which are written. */
  readonly prefix: readonly Shape[];
  /** All further ones; null where there are none. */
  readonly items: Shape | null;
  /** Of further items. */
  readonly minItems: number;
  readonly maxItems: number | null;
}

export interface SchemaShapes {
  readonly root: Shape;
  /** What `$ref`s name. May refer to itself, but can always be written to an end. */
  readonly named: ReadonlyMap<string, Shape>;
}
