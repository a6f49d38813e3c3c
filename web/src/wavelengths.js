const NANOMETRES = {
  nanometers: 1, nanometres: 1, nanometer: 1, nanometre: 1, nm: 1,
  micrometers: 1000, micrometres: 1000, micrometer: 1000, micrometre: 1000, microns: 1000, micron: 1000, um: 1000,
  "µm": 1000, "μm": 1000, angstroms: 0.1, angstrom: 0.1, meters: 1e9, metres: 1e9, m: 1e9,
};
const MICROMETRES_BELOW = 100; // wavelengths without unit are µm if all are below

// Return band centres in nm; all unknown where the unit is no length.
export function toNanometres(wavelength, units) {
  const named = (units ?? "").trim().toLowerCase();
  const known = wavelength.filter((value) => !Number.isNaN(value));
  if (named in NANOMETRES) return wavelength.map((value) => value * NANOMETRES[named]);
  if (named !== "" && named !== "unknown") return wavelength.map(() => NaN);
  return known.length && Math.max(...known) < MICROMETRES_BELOW ? wavelength.map((value) => value * 1000) : wavelength;
}

export function unknownWavelengths(bands) {
  return new Array(bands).fill(NaN);
}
