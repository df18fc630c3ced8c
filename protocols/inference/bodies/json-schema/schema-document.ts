/** Parts of a JSON schema as they stand in it, and what its references lead to. */
import { refusal } from './refusal.ts';

export interface SchemaObject {
  readonly [keyword: string]: unknown;
}

export function isSchemaObject(value: unknown): value is SchemaObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export class SchemaDocument {
  readonly #root: unknown;

  constructor(root: unknown) {
    this.#root = root;
  }

  /**
   * What a `$ref` within this document points to.
   *
   * @throws MeshError `invalid_request` for any other, and for one that points nowhere.
   */
  resolve(ref: unknown, param: string): unknown {
    if (typeof ref !== 'string' || !(ref === '#' || ref.startsWith('#/'))) {
      throw refusal(param, "must point into the same schema, like '#/$defs/name'.");
    }
    let found: unknown = this.#root;
    for (const step of ref.split('/').slice(1)) {
      const name = decoded(step).replaceAll('~1', '/').replaceAll('~0', '~');
      const inside = Array.isArray(found) ? found[Number(name)] : isSchemaObject(found) ? own(found, name) : undefined;
      if (inside === undefined) throw refusal(param, 'points to nothing in this schema.');
      found = inside;
    }
    return found;
  }

  /** The schema itself, or what a chain of references leads to; null where that has no end. */
  dereferenced(schema: unknown): unknown {
    let found = schema;
    for (let hops = 0; hops < 32; hops += 1) {
      if (!isSchemaObject(found) || found['$ref'] === undefined) return found;
      found = this.resolve(found['$ref'], '$ref');
    }
    return null;
  }
}

function own(object: SchemaObject, name: string): unknown {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

function decoded(step: string): string {
  try {
    return decodeURIComponent(step);
  } catch {
    return step;
  }
}
