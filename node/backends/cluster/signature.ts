/** How requests to a Backend.AI manager are signed: HMAC-SHA256 over method, path, date and host. Pure. */
import { createHash, createHmac } from 'node:crypto';

/** What a signature covers. The body is not part of it. */
export interface Signable {
  /** Upper case. */
  readonly method: string;
  /** Path and query exactly as they are sent, after the host. */
  readonly path: string;
  /** Host as it is sent: with its port unless that is the scheme's own. */
  readonly host: string;
  readonly date: Date;
  /** Version of the manager's API, for example `v8.20240315`. */
  readonly version: string;
  /** Default `application/json`. Parameters such as a charset are not signed. */
  readonly contentType?: string;
}

export interface AccessKeys {
  readonly accessKey: string;
  readonly secretKey: string;
}

/** Since v4.20181215 the digest of nothing stands where that of the body stood. */
const NO_BODY = createHash('sha256').update('').digest('hex');
const JSON_TYPE = 'application/json';

/** The text that is signed: seven lines, none at the end. */
export function stringToSign({ method, path, host, date, version, contentType = JSON_TYPE }: Signable): string {
  const mediaType = contentType.split(';', 1)[0]?.trim() ?? '';
  return [
    method,
    path,
    date.toISOString(),
    `host:${host}`,
    `content-type:${mediaType}`,
    `x-backendai-version:${version}`,
    NO_BODY,
  ].join('\n');
}

/** Hex. The key of a day (UTC) and a host signs, so that neither it nor the signature is good for another. */
export function signatureOf(request: Signable, secretKey: string): string {
  const day = request.date.toISOString().slice(0, 10).replaceAll('-', '');
  const ofDay = createHmac('sha256', secretKey).update(day).digest();
  const ofHost = createHmac('sha256', ofDay).update(request.host).digest();
  return createHmac('sha256', ofHost).update(stringToSign(request)).digest('hex');
}

/** The headers that make a request a signed one. They are good for 15 minutes: make them anew for every request. */
export function signedHeaders(request: Signable, { accessKey, secretKey }: AccessKeys): Record<string, string> {
  const credential = `${accessKey}:${signatureOf(request, secretKey)}`;
  return {
    authorization: `BackendAI signMethod=HMAC-SHA256, credential=${credential}`,
    'x-backendai-date': request.date.toISOString(),
    'x-backendai-version': request.version,
    'content-type': request.contentType ?? JSON_TYPE,
  };
}
