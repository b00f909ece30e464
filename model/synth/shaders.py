"""GLSL for the pedestrian renderer: light shared by all, the person's skin and cloth, the street behind.

Lengths are decimetres. A fragment of a person knows its *template* position ``at`` (where on the unmorphed body it
lies), so hems, necklines, prints and pockets are placed by formula and follow every body and pose. Colours are
linear light and leave as sqrt(colour / 2), which gives eight bits a range of two and fine steps in the dark.
"""

from __future__ import annotations

VERTEX = """#version 330
in vec3 in_position; in vec3 in_normal; in vec3 in_template; in vec2 in_arm;
uniform mat4 view_projection;
out vec3 world; out vec3 normal; out vec3 at; out vec2 arm;
void main() {
  world = in_position; normal = in_normal; at = in_template; arm = in_arm;
  gl_Position = view_projection * vec4(in_position, 1.0);
}
"""

SHADOW_FRAGMENT = "#version 330\nvoid main() {}"

BACKDROP_VERTEX = """#version 330
in vec2 in_corner; out vec2 corner;
void main() { corner = in_corner; gl_Position = vec4(in_corner, 0.9999, 1.0); }
"""

# modality: 0 visible light, 1 near infrared (lamp at the camera), 2 thermal.
LIGHT = """
uniform vec3 sun_direction, sun_color, sky_color, bounce_color, eye;
uniform float dapple, shade_edge, shade_angle, light_seed;
uniform mat4 shadow_projection;
uniform sampler2DShadow shadow_map;
uniform sampler3D volume;
uniform int modality;

float hash(vec3 p) { p = fract(p * .1031); p += dot(p, p.zyx + 31.32); return fract((p.x + p.y) * p.z); }
// Baked fractal noise, period 8: x is the value in 0..1, yzw its gradient.
vec4 noise4(vec3 p) { vec4 t = texture(volume, p * .125); return vec4(t.x, (t.yzw - .5) * 4.); }
float noise(vec3 p) { return texture(volume, p * .125).x; }

float sunlight(vec3 p) {
  vec3 q = (shadow_projection * vec4(p, 1.)).xyz * .5 + .5;
  float lit = 1.;
  if (all(greaterThan(q, vec3(0.))) && all(lessThan(q, vec3(1.)))) {
    q.z -= .003;
    vec2 e = vec2(.0012, -.0012);
    lit = .25 * (texture(shadow_map, q + vec3(e.xx, 0)) + texture(shadow_map, q + vec3(e.xy, 0)) +
                 texture(shadow_map, q + vec3(e.yx, 0)) + texture(shadow_map, q + vec3(e.yy, 0)));
  }
  vec2 g = p.xz - sun_direction.xz * (p.y / sun_direction.y);  // where this sunbeam would reach the ground
  if (dapple > 0.)  // through leaves
    lit *= mix(1., smoothstep(.44, .56, noise(vec3(g * .33, light_seed))), dapple);
  float side = dot(g, vec2(cos(shade_angle), sin(shade_angle)));
  return lit * mix(.04, 1., smoothstep(-.8, .8, side - shade_edge));  // the shadow of a building
}

vec3 illuminate(vec3 albedo, vec3 n, vec3 p, float gloss, float heat) {
  vec3 to_eye = normalize(eye - p);
  if (modality == 1) {
    float d = length(eye - p);
    return albedo * (.10 + .95 * pow(max(dot(n, to_eye), 0.), .8)) * min(1.6, 5500. / (d * d) + .35);
  }
  if (modality == 2) return vec3(heat * (.86 + .14 * max(dot(n, to_eye), 0.)));
  float s = sunlight(p + n * .07);
  float k = max(dot(n, sun_direction), 0.);
  float occluded = mix(.74, 1., clamp(p.y / 7., 0., 1.));
  vec3 ambient = mix(bounce_color, sky_color, n.y * .5 + .5) * occluded;
  float rim = pow(1. - max(dot(n, to_eye), 0.), 3.);
  vec3 half_way = normalize(sun_direction + to_eye);
  vec3 shine = (sun_color * s + .35 * sky_color) * gloss * pow(max(dot(n, half_way), 0.), 22.);
  return albedo * (sun_color * k * s + ambient) + sky_color * rim * (.25 * albedo + .02) + shine;
}

vec4 encode(vec3 color, float alpha) { return vec4(sqrt(clamp(color, 0., 2.) * .5), alpha); }
"""

PERSON_FRAGMENT = (
    """#version 330
in vec3 world; in vec3 normal; in vec3 at; in vec2 arm;
out vec4 pixel;
uniform int kind, style, pattern, strap;
uniform vec3 color, color2, color3, strap_color;
uniform float scale, bottom, top, sleeve, neckline, opening, fold, gloss, seed, heat;
uniform float beard, lips, belt, parting, behind;
"""
    + LIGHT
    + """
const int SKIN = 0, LOWER = 1, UPPER = 2, OUTER = 3, SHOE = 4, SKIRT = 5, HAIR = 6, SOLID = 7, EYE = 8;
bool on_arm; float ax, around;

float line(float x, float half_width) { return 1. - smoothstep(half_width * .6, half_width * 1.4, abs(x)); }

vec3 fabric() {  // the print of the cloth, by template position
  vec3 c = color;
  float u = on_arm ? arm.y * 4.5 : at.y, v = around * 1.7;
  if (pattern == 1) c = mix(color, color2, step(.5, fract(u * scale)));  // stripes
  else if (pattern == 2) c = mix(color, color2, step(.82, fract(v * 2.6 * scale)));  // pinstripes
  else if (pattern == 3) {  // plaid
    float a = step(.55, fract(u * scale)), b = step(.55, fract(v * 1.25 * scale));
    c = mix(color, color2, .5 * a + .5 * b);
    c = mix(c, color3, .8 * step(.93, fract(u * scale + .3)));
    c = mix(c, color3, .5 * step(.93, fract(v * 1.25 * scale + .3)));
  } else if (pattern == 4) {  // dots
    vec2 q = vec2(v * 1.5, u) * scale;
    vec2 g = fract(q + vec2(.5 * mod(floor(q.y), 2.), 0.)) - .5;
    c = mix(color2, color, smoothstep(.22, .28, length(g)));
  } else if (pattern == 5) {  // letters across the chest
    if (at.z > .2 && !on_arm) {
      vec2 q = vec2(at.x / 1.1, (at.y - 3.9) / .42);
      if (max(abs(q.x), abs(q.y)) < 1.) {
        vec2 cell = floor(vec2(at.x * 3.2, q.y * 1.2) + seed);
        vec2 f = fract(vec2(at.x * 3.2, q.y * 1.2) + seed);
        float on = step(.16, f.x) * step(.1, f.y) * step(.35, hash(vec3(floor(f * 3.), dot(cell, vec2(3., 7.)))));
        c = mix(color, color2, on);
      }
    }
  } else if (pattern == 6) { if (on_arm) c = color2; }  // sleeves in the second colour
  else if (pattern == 7) {  // flowers
    float q = noise(at * scale * 1.1 + seed), r = noise(at * scale * 2.3 - seed);
    c = q > .58 ? color2 : (q > .52 ? color3 : (r > .64 ? mix(color2, color, .4) : color));
  } else if (pattern == 8) { if (!on_arm && at.y < scale) c = color2; }  // a block below the chest
  else if (pattern == 9) {  // a round print
    if (at.z > .2 && !on_arm) {
      float r = length(at.xy - vec2(0., 3.6));
      if (r < .78) c = color2;
      if (r < .5 && noise(at * 2. + seed) > .5) c = color3;
    }
  } else if (pattern == 10) {  // washed denim
    c = mix(color, color2, .55 * smoothstep(.42, .66, noise(at * vec3(1., .5, 1.) + seed)));
    c = mix(c, color2, .45 * line(ax - 1.35, .55) * smoothstep(-.2, .4, at.z) * smoothstep(.5, -1., at.y));
    c *= .95 + .10 * step(.5, fract((at.x + at.y + at.z) * 13.));
  }
  return c;
}

vec3 weave(vec3 c) {  // fine structure of the cloth itself
  vec3 q = on_arm ? vec3(arm.y * 4.5, around, at.z) : vec3(at.y, around * 1.4, at.z);
  if (kind == UPPER && style == 4) c *= .92 + .14 * step(.5, fract(q.y * 3.6));
  else if (kind == OUTER && style == 2) c *= .88 + .24 * step(.5, fract(q.y * 4.4));
  else c *= .95 + .1 * hash(floor(at * 26.));
  return c;
}

// Folds bend the normal and darken the creases; they gather where the cloth is compressed.
vec3 crease(inout vec3 n) {
  float gather = .45;
  if (on_arm) gather += .7 * line(arm.y - .52, .18) + .4 * smoothstep(.8, 1., arm.y);
  else if (kind == LOWER)
    gather += .8 * line(at.y + 3.7, .9) + .7 * line(at.y - .1, .8) + .8 * smoothstep(-5.8, -7.4, at.y);
  else gather += .5 * line(at.y - 1.6, .9) + .4 * smoothstep(.9, 1.5, ax) * smoothstep(5.4, 4., at.y);
  vec3 stretch = kind == SKIRT || (kind == LOWER && style != 4) ? vec3(1.5, .34, 1.5) : vec3(.8, .95, .8);
  vec3 q = (on_arm ? vec3(arm.y * 4.2, at.z * .7, at.x * .8) : at * stretch + vec3(0., .5 * at.x, 0.)) + seed;
  vec4 a = noise4(q), b = noise4(q * 2.3 + 3.1);
  float ridge = 1. - abs(2. * b.x - 1.);  // sharp creases
  vec3 slope = (a.yzw + .35 * sign(1. - 2. * b.x) * b.yzw) * stretch;
  n = normalize(n - fold * gather * slope);
  return vec3(1. + fold * gather * (1.7 * (a.x - .5) + .9 * (ridge - .82)));
}

void main() {
  vec3 n = normalize(normal), c = color;
  float shine = gloss, warmth = heat;
  on_arm = arm.x > .5; ax = abs(at.x); around = atan(at.x, at.z + .15);
  float neck = length(vec2(at.x, at.z + .05));
  bool front = at.z > .15;
  if (kind == SKIN) {
    c *= .93 + .14 * noise(at * 3.);
    if (at.y > 6. && at.z > .7) {  // the face
      c = mix(c, c * vec3(1.08, .86, .82), .5 * line(length(at.xy - vec2(sign(at.x) * .52, 6.95)), .3));
      if (ax < .34 - 1.6 * abs(at.y - 6.56) && at.z > 1.2) c = mix(c, c * vec3(.95, .5, .5), .45 + .45 * lips);
      c *= 1. - .45 * line(at.y - 6.56, .025) * step(ax, .33);
      float brow = at.y - 7.56 - .12 * ax + .25 * max(0., ax - .38);
      if (abs(brow) < .042 && ax > .16 && ax < .58) c = mix(c, color2, .8);
      c *= 1. - .28 * line(at.y - 7.38, .09) * line(ax - .33, .24);
      if (beard > .5 && at.y < 6.72 + .2 * ax && ax < .8 && (at.y < 6.45 || ax > .3 || at.y > 6.64)) {
        c = mix(c, color2, .62);
      }
    }
    c *= 1. - .3 * smoothstep(6.3, 6.05, at.y) * step(.3, at.z);  // under the chin
  } else if (kind == EYE) {
    vec2 e = vec2(ax - .315, at.y - 7.285);
    c = length(e) < .095 ? color2 : vec3(.62);
    if (length(e) < .04) c = vec3(.01);
  } else if (kind == LOWER) {
    if (on_arm || at.y > top || at.y < bottom) discard;
    c = fabric();
    if (at.y > top - .32) { c *= .78; if (style == 2 || style == 3) c = mix(c, vec3(.05), .8 * belt); }
    c *= 1. - .30 * line(at.y - bottom - .16, .05);
    if (style != 4) {
      c *= 1. - .3 * line(around - sign(around) * 1.55, .035);  // side seams
      c *= 1. - .35 * line(ax, .05) * step(-.6, at.y) * step(.2, at.z);  // fly
      float pocket = front ? at.y - .55 - .9 * (ax - 1.1) : max(abs(ax - .85) - .45, abs(at.y + .05) - .5);
      if (at.y > -.8) c *= 1. - .4 * line(pocket, .06) * step(.55, ax) * (front ? step(ax, 1.7) : step(ax, 1.5));
    }
    if (style == 2) c *= 1. + .22 * line(ax - 1.45 - .03 * at.y, .08) * step(.2, at.z);  // pressed crease
  } else if (kind == UPPER) {
    if (on_arm) { if (arm.y > sleeve) discard; }
    else {
      if (at.y < bottom || (sleeve < .2 && style == 6 && ax > 1.28 && at.y > 3.9)) discard;
      if (neck < .80 && at.y > 5.3 && (at.z > 0. || at.y > 5.75)) discard;
      float v = 5.75 - neckline;
      float cut = style == 1 || style == 2 || style == 3 ? .55 * (at.y - v) : .75 * sqrt(max(0., at.y - v) / .75);
      if (at.z > 0. && at.y > v && ax < cut) discard;
    }
    c = fabric();
    float hem = on_arm ? (sleeve - arm.y) * 4.5 : at.y - bottom;
    if (style == 4 || style == 5) c *= hem < .34 ? .80 + .14 * step(.5, fract(around * 9.)) : 1.;  // ribbing
    else c *= 1. - .22 * line(hem - .17, .045);  // stitching
    if (!on_arm) {
      if (at.z > 0. && neckline > 0. && style != 1) {
        float v = 5.75 - neckline;
        if (at.y > v - .16 && ax < .75 * sqrt(max(0., at.y - v + .16) / .75) + .06) c *= .78;
      }
      if ((style == 1 || (style == 2 && at.y > 4.)) && front) {  // placket and buttons
        c *= 1. - .38 * line(ax - .17, .03);
        if (ax < .07 && fract(at.y * 1.25) < .11) c = mix(c, vec3(.85), .55);
      }
      if (style == 5 && front) {  // pouch and strings
        float edge = max(ax - (1.15 - .35 * smoothstep(1.5, 2.4, at.y)), abs(at.y - 1.95) - .55);
        c *= 1. - .42 * line(edge, .05);
        if (at.y > 4.1 && abs(ax - .22) < .04) c = mix(c, vec3(.8), .7);
      }
      c *= 1. - .16 * line(ax - 1.42, .05) * step(3.9, at.y);  // shoulder seam
    }
  } else if (kind == OUTER) {
    if (on_arm) { if (arm.y > sleeve) discard; }
    else {
      if (at.y < bottom || (sleeve < .2 && ax > 1.35 && at.y > 4.1)) discard;
      if (neck < .86 && at.y > 5.4 && (at.z > 0. || at.y > 5.95)) discard;
      if (at.z > .25 && ax < opening * (1.15 - .10 * (5.5 - at.y)) + .02) discard;
      if (at.z > .25 && style != 0 && ax < .62 * (at.y - 4.3)) discard;  // an open throat
    }
    c = fabric();
    float hem = on_arm ? (sleeve - arm.y) * 4.5 : at.y - bottom;
    if (style == 0 || style == 2) c *= hem < .36 ? .72 + .14 * step(.5, fract(around * 9.)) : 1.;
    else c *= 1. - .3 * line(hem - .2, .05);
    if (!on_arm && at.z > .2) {
      float edge = opening > .01 ? ax - opening * (1.15 - .10 * (5.5 - at.y)) - .14 : ax;
      if (style == 0 || style == 3) { if (abs(edge) < .055) c = mix(c, vec3(.62), .6); }  // zip
      else { c *= 1. - .3 * line(edge, .04); if (opening < .01 && ax < .09 && fract(at.y * .8) < .12) c *= .35; }
      float lapel = ax - opening - .25 - .35 * (at.y - 3.6);
      if (style == 1 && at.y > 3.4) c *= 1. - .35 * line(lapel, .07);
      c *= 1. - .45 * line(abs(ax - 1.15 + .3 * (at.y - 1.4)), .05) * step(abs(at.y - 1.4), .45);  // slanted pockets
    }
    if (style == 3) c *= 1. - .35 * line(fract(at.y * .9) - .5, .07);  // quilting
  } else if (kind == SHOE) {
    if (on_arm || at.y > top) discard;
    bool sole = at.y < -8.0;
    c = sole ? color2 : color;
    if (style == 2 && !sole) {  // sandals: straps over the bare foot
      bool across = abs(at.z - 1.35) < .2 || abs(at.z - .15 - .5 * (at.y + 7.6)) < .17 || (at.z < -.35 && at.y < -7.5);
      if (!across) discard;
    }
    if (style == 1 && !sole) {  // sneakers: laces, toe cap, side flash
      if (at.z > 1.75) c = mix(c, color3, .8);
      if (at.z > .55 && at.z < 1.4 && at.y > -7.75 && fract(at.z * 4.5) < .4) c = mix(c, color3, .75);
      if (abs(at.y + 7.8 - .3 * (at.z - .5)) < .07 && at.z > 0. && at.z < 1.1) c = mix(c, color3, .7);
    }
    if (style == 3) c *= 1. - .35 * line(at.y + 7.3, .06) - .2 * line(at.z - .6 + .4 * (at.y + 7.), .05);
    c *= 1. - .3 * line(at.y + 7.97, .04);
  } else if (kind == SKIRT) {
    if (at.y < bottom || (opening > 0. && at.z > .2 && ax < opening * (1.25 + .05 * (1.8 - at.y)))) discard;
    c = fabric();
    c *= 1. - .25 * line(at.y - bottom - .18, .05);
    if (style == 1) { float w = sin(around * 22.); n = normalize(n + .5 * w * vec3(n.z, 0., -n.x)); c *= .9 + .13 * w; }
  } else if (kind == HAIR) {
    if (at.y < bottom) discard;
    float wisp = noise(vec3(at.x * 5., at.y * .6, at.z * 5.) + seed);
    float angle = atan(at.x - .25 * parting, at.z);
    if (style == 1) {  // loose hair: keep the face and, unless worn in front, the chest free
      if (at.z > .62 && ax < .62 + .3 * wisp && at.y < top) discard;
      if (behind > 0. && at.z > .1 && at.y < 6.5 + .5 * wisp) discard;
    } else {
      float hairline = top + .28 * (wisp - .5) - .12 * parting * at.x;
      if (at.z > .45 + .2 * wisp && at.y < hairline) discard;
      if (at.z > -.12 && at.y < 7.05 + .2 * wisp) discard;  // sideburns
      if (ax > .80 && at.y < 7.52 && at.z > -.45 && at.z < .4) discard;  // ears
    }
    float strand = .6 * noise(vec3(angle * 9., at.y * .45, 2. * ax) + seed);
    strand += .4 * noise(vec3(angle * 24., at.y * .7, seed));
    c *= .35 + 1.3 * smoothstep(.25, .8, strand);
    n = normalize(n + .5 * (strand - .5) * vec3(n.z, .3, -n.x));
    shine = gloss * strand * 1.6;
  } else {  // SOLID: bags, hats, props
    c *= .88 + .24 * noise(at * 1.5 + seed);
    if (style == 1) {  // bags: seams, a zip, a flap
      float y = at.y - bottom;
      c *= 1. - .5 * line(y, .07);
      if (abs(y - .06) < .035) c = mix(c, vec3(.6), .5);
      c *= .94 + .12 * hash(floor(at * 18.));
    }
    if (style == 2) c *= .92 + .2 * step(.5, fract(around * 2.546)) * step(.0, at.y);  // panels of a cap or umbrella
    if (style == 3) c = mix(c, color2, step(.0, at.y - bottom));  // two-coloured
  }
  if (strap > 0 && (kind == UPPER || kind == OUTER) && !on_arm) {
    float away = 9.;
    if (strap == 1) { if (at.z > -.35 && at.y > 2.4) away = ax - 1.1 + .05 * (5.2 - at.y); }
    else if (strap == 4 || strap == 5) {
      if (at.y > 2.7 && (at.y > 5. || abs(at.z) > .45)) away = at.x * (strap == 4 ? 1. : -1.) - 1.12;
    }
    else away = (at.y - mix(5.6, 1.2, (1.15 - at.x * (strap == 3 ? -1. : 1.)) / 2.6)) * .85;
    if (abs(away) < .19) { c = strap_color * (abs(away) > .13 ? .65 : 1.); shine = .05; }
    else c *= 1. - .25 * line(abs(away) - .22, .07);
  } else if (fold > 0.) {
    vec3 k = crease(n);
    c = weave(c * k);
  }
  if (modality == 2) warmth *= .9 + .2 * noise(at * .8 + seed);
  if (modality == 1) c = vec3(dot(c, vec3(.333)));
  if (!gl_FrontFacing) { n = -n; if (kind != HAIR) c *= .55; }
  pixel = encode(illuminate(c, n, world, shine, warmth), 1.);
}
"""
)

BACKDROP_FRAGMENT = (
    """#version 330
in vec2 corner; out vec4 pixel;
uniform mat4 inverse_view_projection;
uniform int ground, wall, box_count, tree_count;
uniform vec3 ground_a, ground_b, wall_a, wall_b, horizon, feet;
uniform float ground_yaw, ground_scale, wall_distance, wall_yaw, seed;
uniform vec3 box_center[8], box_half[8], box_color[8];
uniform int box_kind[8];
uniform vec4 tree[4];
"""
    + LIGHT
    + """
float joint(vec2 f, vec2 width) { return f.x < width.x || f.y < width.y ? 1. : 0.; }

vec3 bricks(vec2 p, vec2 size, vec3 c, vec3 mortar) {
  vec2 k = p / size; k.x += .5 * mod(floor(k.y), 2.);
  c *= .74 + .52 * hash(vec3(floor(k), 2.));
  return mix(c, mortar, joint(fract(k), vec2(.05, .1)));
}

vec3 ground_color(vec3 p) {
  float s = sin(ground_yaw), r = cos(ground_yaw);
  vec2 q = vec2(r * p.x + s * p.z, r * p.z - s * p.x) * ground_scale + seed;
  float coarse = noise(vec3(q * .11, seed)), fine = noise(vec3(q * 1.1, seed + 2.));
  vec3 c = mix(ground_a, ground_b, smoothstep(.3, .7, coarse));
  vec2 f, k;
  if (ground == 0) {  // asphalt with cracks
    float crack = abs(noise(vec3(q * .17, 5.)) - .5);
    c *= crack < .006 ? .5 : 1.;
    c *= .68 + .64 * hash(floor(vec3(q * 5., 1.)));
  } else if (ground == 1) {  // slabs
    k = q / 6.; f = fract(k);
    c *= .82 + .36 * hash(vec3(floor(k), seed));
    c *= joint(f, vec2(.03)) > 0. ? .55 : 1.;
  } else if (ground == 2) {  // grass
    c = mix(ground_a, ground_b, fine);
    c *= .55 + .9 * hash(floor(vec3(q.x * 3., q.y * 6., 1.)));
  } else if (ground == 3) {  // zebra crossing
    c *= .75 + .5 * hash(floor(vec3(q * 4., 1.)));
    if (fract(q.x / 9.5) < .46) c = mix(c, vec3(.82), .55 + .6 * (fine - .2));
  } else if (ground == 4) c = bricks(q, vec2(2.4, 1.2), c, c * .5);  // paving bricks
  else if (ground == 5) {  // two-coloured tiles
    k = q / 4.; c = mod(floor(k.x) + floor(k.y), 2.) < .5 ? ground_a : ground_b;
    c *= joint(fract(k), vec2(.02)) > 0. ? .7 : 1.;
  } else if (ground == 6) {  // concrete panels
    f = fract(q / vec2(18., 26.)); c *= joint(f, vec2(.008)) > 0. ? .45 : 1.;
    c *= .8 + .4 * noise(vec3(q * .4, 9.));
  } else if (ground == 7) {  // road edge: lane line, kerb, slabs beyond
    if (q.x > 6.) { k = q / 4.; c = mix(c, vec3(.62, .60, .56), .7) * (.8 + .4 * hash(vec3(floor(k), 3.)));
      c *= joint(fract(k), vec2(.03)) > 0. ? .6 : 1.; }
    else if (q.x > 4.4) c = vec3(.66) * (fract(q.y / 10.) < .02 ? .5 : 1.);
    else { c *= .6 + .5 * hash(floor(vec3(q * 4., 1.))); if (abs(q.x + 4.) < .7) c = mix(c, vec3(.85), .8); }
  } else if (ground == 8) {  // cobbles
    k = q / 1.3; k.x += .5 * mod(floor(k.y), 2.); f = fract(k) - .5;
    c *= (.6 + .7 * hash(vec3(floor(k), 4.))) * mix(1., .35, smoothstep(.36, .5, length(f)));
  } else {  // slabs with a tactile strip
    k = q / 3.; c *= .85 + .3 * hash(vec3(floor(k), seed));
    c *= joint(fract(k), vec2(.04)) > 0. ? .65 : 1.;
    if (abs(q.x - 5.) < 3.) { c = vec3(.78, .58, .12) * (.85 + .3 * fine);
      c *= length(fract(q * 1.6) - .5) < .3 ? 1.25 : .85; c *= joint(fract(k), vec2(.03)) > 0. ? .6 : 1.; }
  }
  return c * (.84 + .32 * fine);
}

vec3 wall_color(vec2 p) {
  float stain = noise(vec3(p * .15, seed)), fine = noise(vec3(p * 1.3, seed));
  vec3 c = mix(wall_a, wall_b, .5 * smoothstep(.3, .7, stain));
  float id; vec2 k;
  if (wall == 1) c = bricks(p, vec2(2.4, .8), c, vec3(.6));
  else if (wall == 2) {  // windows
    k = fract(vec2(p.x, p.y - 4.) / vec2(15., 16.));
    if (k.x > .12 && k.x < .9 && k.y > .1 && k.y < .85 && p.y > 4.) {
      c = mix(wall_b * .2, horizon * .8, smoothstep(.35, .65, noise(vec3(p * vec2(.12, .2), seed + 3.))));
      if (abs(k.x - .5) < .015 || abs(k.y - .5) < .012) c = vec3(.7);
    }
    if (k.y > .06 && k.y <= .1) c *= 1.35;
  } else if (wall == 3) {  // hedge
    float leaf = noise(vec3(p * .9, seed));
    c = mix(vec3(.03, .07, .02), vec3(.30, .42, .14), smoothstep(.35, .7, leaf));
    c *= .5 + hash(floor(vec3(p * 3., 1.)));
    if (p.y > 16. + 6. * noise(vec3(p.x * .3, seed, 0.))) c = horizon;
  } else if (wall == 4) {  // shop fronts
    id = floor(p.x / 22.); float u = fract(p.x / 22.);
    vec3 r = vec3(hash(vec3(id, 1., seed)), hash(vec3(id, 2., seed)), hash(vec3(id, 3., seed)));
    vec3 inside = vec3(.06) + .9 * r.zxy * smoothstep(.45, .7, noise(vec3(p * vec2(.5, .8), seed)));
    c = u < .06 || p.y < 3. ? wall_a * .7 : (p.y < 20. ? inside : (p.y < 27. ? .15 + .8 * r : mix(wall_a, r, .2)));
    if (p.y > 21.5 && p.y < 25.5) c = mix(c, vec3(.92), step(.55, hash(floor(vec3(p * vec2(1.4, .6), id)))));
  } else if (wall == 5) {  // shutter
    c *= .6 + .55 * smoothstep(0., 1., fract(p.y * .9)); c *= fract(p.x / 26.) < .03 ? .4 : 1.;
  } else if (wall == 6) {  // posters on a wall
    k = p / vec2(13., 17.); id = hash(vec3(floor(k), seed)); vec2 f = fract(k);
    if (id > .45 && f.x > .15 && f.x < .85 && f.y > .12 && f.y < .9) {
      vec3 r = vec3(hash(vec3(id, 1., 2.)), hash(vec3(id, 5., 1.)), hash(vec3(id, 3., 7.)));
      c = mix(r, 1. - .7 * r.yzx, step(.55, noise(vec3(p * .5, 9. * id))));
      c = mix(c, vec3(.9), step(.7, hash(floor(vec3(p * vec2(.8, 1.6), id)))) * step(f.y, .4));
    }
  } else if (wall == 7) {  // railings before a street
    float bar = fract(p.x / 2.2);
    c = mix(horizon * .5, wall_b, smoothstep(.35, .65, noise(vec3(p * .12, seed))));
    if (p.y < 12. && (bar < .16 || abs(p.y - 11.) < .5 || abs(p.y - 2.) < .4)) c = wall_a * .4;
  }
  if (p.y < 2.2 && wall != 3 && wall != 7) c *= .62;  // plinth
  return c * (.85 + .3 * fine);
}

// Entry distance of a ray into a box, or -1.
float enter(vec3 origin, vec3 direction, int i, out vec3 n) {
  vec3 m = 1. / direction, a = m * (origin - box_center[i]), k = abs(m) * box_half[i];
  vec3 t1 = -a - k, t2 = -a + k;
  float near = max(max(t1.x, t1.y), t1.z), far = min(min(t2.x, t2.y), t2.z);
  n = -sign(direction) * step(t1.yzx, t1.xyz) * step(t1.zxy, t1.xyz);
  return near < far && near > 0. ? near : -1.;
}

vec3 box_surface(int i, vec3 p, vec3 n) {
  vec3 q = p - box_center[i], c = box_color[i] * (.84 + .32 * noise(p * .5 + seed));
  vec3 h = box_half[i];
  if (box_kind[i] == 1) {  // car body: wheels, lamps
    float along = h.x > h.z ? q.x : q.z, length_ = max(h.x, h.z);
    if (abs(n.y) < .5 && length(vec2(abs(along) - .62 * length_, q.y + h.y * .75)) < 3.2) c = vec3(.02);
    if (abs(along) > .97 * length_ && abs(q.y) < 1.) c = vec3(.85, .7, .6);
    c *= 1. - .4 * step(abs(abs(along) - 3.), .15);
  } else if (box_kind[i] == 2) c = mix(vec3(.03), horizon * .6, .6 * smoothstep(.4, .6, noise(p * .3)));  // glass
  else if (box_kind[i] == 3) c *= fract(p.y / 3.) < .07 || fract(p.x / 5.) < .05 ? .5 : 1.;  // crate, kiosk
  return c;
}

void main() {
  vec4 a = inverse_view_projection * vec4(corner, -1., 1.), b = inverse_view_projection * vec4(corner, 1., 1.);
  vec3 origin = a.xyz / a.w, ray = normalize(b.xyz / b.w - origin);
  float t = 1e5, heat = .12;
  vec3 p = vec3(0.), n = vec3(0., 1., 0.), c = vec3(0.);
  bool sky = true;
  if (ray.y < -1e-3) { t = -origin.y / ray.y; p = origin + ray * t; sky = false; c = ground_color(p); heat = .22; }
  vec3 facing = vec3(sin(wall_yaw), 0., cos(wall_yaw)), m;
  float across = dot(ray, facing);
  if (wall_distance > 0. && across < -1e-3) {
    float d = (-wall_distance - dot(origin, facing)) / across;
    if (d > 0. && d < t) {
      t = d; p = origin + ray * t; n = facing; sky = false; heat = .28;
      c = wall_color(vec2(dot(p, vec3(facing.z, 0., -facing.x)), p.y));
    }
  }
  for (int i = 0; i < box_count; i++) {
    float d = enter(origin, ray, i, m);
    if (d > 0. && d < t) { t = d; n = m; p = origin + ray * t; c = box_surface(i, p, n); sky = false; heat = .3; }
  }
  for (int i = 0; i < tree_count; i++) {
    vec3 q = origin - tree[i].xyz; float h = dot(q, ray), e = h * h - dot(q, q) + tree[i].w * tree[i].w;
    if (e > 0. && -h - sqrt(e) > 0. && -h - sqrt(e) < t) {
      vec3 w = origin + ray * (-h - sqrt(e)); float leaf = .55 * noise(w * .9 + seed) + .45 * noise(w * 3.7 + seed);
      if (leaf > .42) {
        t = -h - sqrt(e); p = w; n = normalize(w - tree[i].xyz); sky = false; heat = .25;
        c = mix(vec3(.03, .08, .02), vec3(.32, .46, .15), smoothstep(.42, .62, leaf));
        c *= .7 + .6 * hash(floor(w * 3.));
      }
    }
  }
  if (sky) { pixel = encode(modality > 0 ? vec3(.03) : horizon * (.9 + .15 * corner.y), 0.); return; }
  if (modality == 0) {
    vec3 q = p + n * .1; float s = sunlight(q);
    for (int i = 0; i < box_count; i++) if (enter(q, sun_direction, i, m) > 0.) s *= .1;
    vec2 away = p.xz - feet.xz;
    float contact = n.y > .5 && p.y < .1 ? 1. - .5 * exp(-dot(away, away) / 5.) : 1.;
    c *= sun_color * max(dot(n, sun_direction), 0.) * s + mix(bounce_color, sky_color, n.y * .5 + .5) * contact;
    c = mix(c, horizon, clamp(t / 900. - .08, 0., .5));
  } else c = illuminate(vec3(dot(c, vec3(.333))), n, p, 0., heat);
  pixel = encode(c, 0.);
}
"""
)
