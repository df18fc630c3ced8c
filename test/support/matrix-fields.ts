/** Every field that a TypeBox schema names, so that a new one without a test shows. */

interface SchemaNode {
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly items?: SchemaNode;
  readonly anyOf?: readonly SchemaNode[];
  readonly enum?: readonly unknown[];
}

/** `messages[].role`, and `messages[].role=user` for each value of an enumeration; in the order of the schema. */
export function schemaFields(schema: object, path = ''): string[] {
  const { properties = {}, items, anyOf = [], enum: values = [] } = schema as SchemaNode;
  const found = [
    ...Object.entries(properties).flatMap(([key, inner]) => {
      const name = path === '' ? key : `${path}.${key}`;
      return [name, ...schemaFields(inner, name)];
    }),
    ...(items === undefined ? [] : schemaFields(items, `${path}[]`)),
    ...anyOf.flatMap((variant) => schemaFields(variant, path)),
    ...values.map((value) => `${path}=${String(value)}`),
  ];
  return [...new Set(found)];
}
