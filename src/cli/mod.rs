//! Every flag and variable, in Twill's spelling and in flanneld's.
