/** A schema's complaint in OpenAI's words: one field, named the way a client wrote it. */
import type { TLocalizedValidationError } from 'typebox/error';
import { MeshError } from '../../../node/common/errors.ts';

/** The first mistake, as an `invalid_request` whose `param` names the field. */
export function bodyMistake(errors: readonly TLocalizedValidationError[]): MeshError {
  const mistake = errors[0];
  if (mistake === undefined) return new MeshError('invalid_request', 'The request body is invalid.');
  if (mistake.keyword === 'required') return missing(mistake.instancePath, mistake.params.requiredProperties[0] ?? '');
  // A union complains for each of its variants: the deepest complaint is of the variant that was meant.
  const end = errors.findIndex((error) => error.keyword === 'anyOf');
  const variants = errors.slice(0, end === -1 ? 1 : end);
  const meant = variants.toSorted((a, b) => depth(b.instancePath) - depth(a.instancePath))[0] ?? mistake;
  if (meant.keyword === 'required') return missing(meant.instancePath, meant.params.requiredProperties[0] ?? '');
  const param = fieldName(meant.instancePath);
  if (param === '') return new MeshError('invalid_request', 'The request body must be a JSON object.');
  const rules = variants.filter((error) => error.instancePath === meant.instancePath).map(rule);
  return new MeshError('invalid_request', `Invalid value for '${param}': ${[...new Set(rules)].join(' or ')}.`, {
    param,
  });
}

function missing(parentPath: string, field: string): MeshError {
  const parent = fieldName(parentPath);
  const param = parent === '' ? field : `${parent}.${field}`;
  return new MeshError('invalid_request', `Missing required parameter: '${param}'.`, { param });
}

function rule(error: TLocalizedValidationError): string {
  if (error.keyword === 'enum') return `must be one of ${error.params.allowedValues.map(String).join(', ')}`;
  if (error.keyword === 'type') return `must be ${[error.params.type].flat().join(' or ')}`;
  return error.message;
}

const depth = (pointer: string): number => pointer.split('/').length;

/** `/messages/0/role` as `messages[0].role`. */
function fieldName(pointer: string): string {
  const keys = pointer.split('/').slice(1);
  return keys.reduce((name, key) => {
    if (/^\d+$/.test(key)) return `${name}[${key}]`;
    return name === '' ? key : `${name}.${key}`;
  }, '');
}
